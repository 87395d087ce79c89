"""Checks the dashboards against Grafana's own types: ``make check-dashboards`` (needs Node.js and npm).

Fetches ``@grafana/schema`` of the version in docker-compose.yml and TypeScript into a temporary folder, and
has the compiler compare every dashboard, and each panel's options and field settings, with the published
types: unknown names, wrong types and values outside an enumeration are errors. Not in CI, which needs no
Node.js.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TYPESCRIPT = "5.9.3"
TYPES = "@grafana/schema/dist/types/raw"
# Beside the schema Grafana reads the annotation fields of the Prometheus data source.
HEAD = """
import type {{ Dashboard, AnnotationQuery }} from '{types}/dashboard/x/types.gen';
{imports}
type Mark = AnnotationQuery & {{
  expr: string; step: string; titleFormat: string; textFormat: string; tagKeys: string;
}};
type Board = Omit<Dashboard, 'annotations'> & {{ annotations: {{ list: Mark[] }} }};
"""
# Panels whose field settings have a type of their own.
WITH_FIELD_CONFIG = {"barchart", "heatmap", "statetimeline", "table", "timeseries"}


def version() -> str:
    """Grafana's, as the compose file pins it."""
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    found = re.search(r"image: grafana/grafana:(\S+)", text)
    if found is None:
        message = "docker-compose.yml names no image grafana/grafana"
        raise SystemExit(message)
    return found[1]


def loosen_enumerations(types: Path) -> None:
    """Make the declared enumerations unions of their values: JSON holds the values, not the names."""
    pattern = re.compile(r"export declare enum (\w+) \{(.*?)\n\}", re.DOTALL)
    for path in types.rglob("*.d.ts"):
        text = path.read_text(encoding="utf-8")
        path.write_text(
            pattern.sub(
                lambda match: (
                    f"export type {match[1]} = "
                    + " | ".join(re.findall(r'= (".*?"|-?\d+)', match[2]))
                    + f";\nexport declare const {match[1]}: any;"
                ),
                text,
            ),
            encoding="utf-8",
        )


def program(boards: dict[str, dict[str, Any]]) -> str:
    """TypeScript in which every dashboard and panel is a typed constant."""
    kinds = sorted(
        {panel["type"] for board in boards.values() for panel in board["panels"] if panel["type"] != "row"}
    )
    imports = "\n".join(
        f"import type * as {kind} from '{TYPES}/composable/{kind}/panelcfg/x/types.gen';" for kind in kinds
    )
    lines = [HEAD.format(types=TYPES, imports=imports)]
    for number, board in enumerate(boards.values()):
        lines.append(f"export const board{number}: Board = {json.dumps(board)};")
        for panel in board["panels"]:
            if panel["type"] == "row":
                continue
            name = f"board{number}panel{panel['id']}"
            kind = f"Partial<{panel['type']}.Options>"
            lines.append(f"export const {name}: {kind} = {json.dumps(panel.get('options', {}))};")
            if panel["type"] in WITH_FIELD_CONFIG:
                kind = f"Partial<{panel['type']}.FieldConfig>"
                for place, custom in enumerate(_custom(panel["fieldConfig"])):
                    lines.append(f"export const {name}custom{place}: {kind} = {json.dumps(custom)};")
    return "\n".join(lines)


def _custom(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Field settings of a panel's own kind: its defaults, and those of each field that has others."""
    found = [config["defaults"].get("custom") or {}]
    for override in config["overrides"]:
        settings = {item["id"]: item["value"] for item in override["properties"]}
        prefix = "custom."
        found.append(
            {name.removeprefix(prefix): value for name, value in settings.items() if name.startswith(prefix)}
        )
    return [custom for custom in found if custom]


def main() -> int:
    """Fetch, compile, say what is wrong."""
    npm = shutil.which("npm")
    if npm is None:
        print("npm is not on PATH: install Node.js", file=sys.stderr)
        return 1
    paths = sorted((Path(__file__).parent / "dashboards").glob("*.json"))
    boards = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in paths}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "package.json").write_text('{"private": true}')
        packages = [f"@grafana/schema@{version()}", f"typescript@{TYPESCRIPT}"]
        quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        subprocess.run([npm, "install", *quiet, *packages], cwd=folder, check=True)  # noqa: S603
        loosen_enumerations(folder / "node_modules/@grafana/schema/dist/types")
        (folder / "check.ts").write_text(program(boards), encoding="utf-8")
        compiler = folder / "node_modules/.bin/tsc"
        options = [
            "--noEmit",
            "--strict",
            "--skipLibCheck",
            "--moduleResolution",
            "node",
            "--module",
            "commonjs",
        ]
        done = subprocess.run([str(compiler), *options, "check.ts"], cwd=folder, check=False)  # noqa: S603
    if done.returncode == 0:
        print(f"{len(boards)} dashboards are as @grafana/schema {version()} has them")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
