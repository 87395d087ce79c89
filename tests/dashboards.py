"""The dashboards as Grafana would ask for them: every query, with the variables filled in."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.conftest import ROOT

DASHBOARDS = sorted((ROOT / "monitoring/grafana/dashboards").glob("*.json"))
PROMETHEUS, API = "prometheus", "yesoreyeram-infinity-datasource"

Value = str | Sequence[str]


class Query(NamedTuple):
    """One query: of a panel, an annotation or a variable."""

    dashboard: str
    place: str
    source: str
    target: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.place} {self.target.get('refId', '')}".strip()


def read(path: Path) -> dict[str, Any]:
    """One dashboard."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def panels(board: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All panels, those inside rows included."""
    return [inner for panel in board["panels"] for inner in (panel, *panel.get("panels", []))]


def queries(path: Path) -> Iterator[Query]:
    """Every query of panels, annotations and variables."""
    board = read(path)
    for panel in panels(board):
        for target in panel.get("targets", []):
            yield Query(path.stem, panel["title"], target["datasource"]["type"], target)
    for annotation in board["annotations"]["list"]:
        yield Query(path.stem, f"annotation {annotation['name']}", PROMETHEUS, annotation)
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            target = {"query": variable["query"]["query"]}
            yield Query(path.stem, f"variable {variable['name']}", PROMETHEUS, target)


def all_queries() -> list[Query]:
    """Every query of every dashboard."""
    return [query for path in DASHBOARDS for query in queries(path)]


def _formatted(value: Value, form: str) -> str:
    values = [value] if isinstance(value, str) else list(value)
    if form == "csv":
        return ",".join(values)
    if form == "regex":  # how the Prometheus data source fills in what may have several values
        escaped = [re.sub(r"([\\^$.|?*+()\[\]{}])", r"\\\\\1", one) for one in values]
        return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"
    if form in {"", "raw", "date:iso"} and len(values) == 1:
        return values[0]
    message = f"no stand-in for the format {form!r} of {values}"
    raise ValueError(message)


def filled(text: str, values: Mapping[str, Value], *, default: str = "") -> str:
    """`text` with ``$name``, ``${name}`` and ``${name:format}`` filled in; an unknown name is an error."""

    def replace(match: re.Match[str]) -> str:
        name = match["plain"] or match["braced"]
        if name not in values:
            message = f"unknown variable {match[0]} in {text}"
            raise KeyError(message)
        return _formatted(values[name], match["form"] or default)

    return re.sub(r"\$(?:(?P<plain>\w+)|\{(?P<braced>\w+)(?::(?P<form>[\w:]+))?\})", replace, text)


def address(target: Mapping[str, Any], values: Mapping[str, Value]) -> str:
    """Path and query that the Infinity data source asks for."""
    params = [(param["key"], filled(param["value"], values)) for param in target["url_options"]["params"]]
    return f"{target['url']}?{urllib.parse.urlencode(params)}"


def table(target: Mapping[str, Any], answer: Any) -> list[dict[str, Any]]:
    """The rows that the Infinity data source makes of an answer: root selector, then paths within each row.

    Its back end takes names joined by dots, numbers for places in lists, and gives null for what is missing.
    """
    return [
        {column["text"]: _at(row, column["selector"]) for column in target["columns"]}
        for row in _at(answer, target["root_selector"])
    ]


def _at(value: Any, selector: str) -> Any:
    for part in selector.split("."):
        if isinstance(value, list):
            value = value[int(part)] if int(part) < len(value) else None
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value
