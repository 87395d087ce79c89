"""Writes the dashboards: ``make dashboards``, or ``python -m monitoring.grafana.build [--check]``.

The JSON files are committed, so that Grafana needs no build; ``--check`` says which differ from the code.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from monitoring.grafana import articles, model, pipeline, topics
from monitoring.grafana.parts import finished

__all__ = ["FOLDER", "built", "drifted"]

FOLDER = Path(__file__).parent / "dashboards"


def built() -> dict[str, dict[str, Any]]:
    """Every dashboard by its file name."""
    return {
        "topics-and-stance.json": finished(topics.build()),
        "articles.json": finished(articles.build()),
        "pipeline.json": finished(pipeline.build()),
        "model.json": finished(model.build()),
    }


def _texts() -> dict[str, str]:
    return {name: json.dumps(plain, indent=2, ensure_ascii=False) + "\n" for name, plain in built().items()}


def drifted(folder: Path = FOLDER) -> list[str]:
    """Names of the files that differ from the code, are missing or are of no dashboard."""
    texts = _texts()
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    return sorted(name for name in texts.keys() | found.keys() if texts.get(name) != found.get(name))


def main() -> int:
    """Write, or check."""
    if "--check" in sys.argv[1:]:
        names = drifted()
        print("make dashboards would change: " + ", ".join(names) if names else "up to date")
        return int(bool(names))
    texts = _texts()
    for path in FOLDER.glob("*.json"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
