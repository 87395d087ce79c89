"""Where events come from: text articles, JSON lines, folders of both.

A source yields :class:`Record`: key and value bytes as they are published. JSON lines are passed on byte
for byte, so that a malformed one arrives as malformed and ends as a dead letter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from stream.errors import ConfigurationError, RejectedEvent
from stream.schema import Event, content_id, decode_event, encode

__all__ = ["Record", "article_event", "read_paths"]

_METADATA = re.compile(r"^(Source|Published|URL):\s*(.+)$", re.IGNORECASE)
HEADLINE_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True)
class Record:
    """One record to publish.

    Attributes
    ----------
    key, value : bytes
    origin : str
        ``file:line`` or the file, for messages.
    published_at : datetime or None
        Event time, for ``--speedup``; None when the value is no event.
    event_id, version : str, int
        Of the event; empty and 0 when the value is none.
    """

    key: bytes
    value: bytes
    origin: str
    published_at: datetime | None = None
    event_id: str = ""
    version: int = 0


class _Peek(msgspec.Struct):
    """What can be read from a line that is no event."""

    id: str | None = None


_peek = msgspec.json.Decoder(_Peek)


def read_paths(paths: Iterable[Path]) -> list[Record]:
    """Read files and folders (``*.txt`` and ``*.jsonl``, by name, with subfolders).

    Raises
    ------
    ConfigurationError
        When a path does not exist, has another ending, nothing is found, or an article's date is unreadable.
    """
    records: list[Record] = []
    for path in paths:
        files = _files(path)
        for file in files:
            records.extend(_read_lines(file) if file.suffix == ".jsonl" else [_read_article(file)])
    if not records:
        message = (
            f"nothing to replay in {', '.join(map(str, paths))}: expected .txt articles or .jsonl events"
        )
        raise ConfigurationError(message)
    return records


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(
            file for file in path.rglob("*") if file.suffix in {".txt", ".jsonl"} and file.is_file()
        )
    if not path.is_file():
        message = f"{path} does not exist"
        raise ConfigurationError(message)
    if path.suffix not in {".txt", ".jsonl"}:
        message = f"{path}: expected a .txt article, a .jsonl file of events, or a folder of both"
        raise ConfigurationError(message)
    return [path]


def _read_lines(file: Path) -> Iterator[Record]:
    for number, line in enumerate(file.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        yield _line_record(line, f"{file.name}:{number}", f"{file}:{number}")


def _line_record(line: bytes, place: str, origin: str) -> Record:
    """A line with the key that the worker expects; one that is no event goes under its id or its place."""
    latest = datetime.max.replace(tzinfo=UTC) - timedelta(days=2)  # the worker judges dates, not we
    try:
        event = decode_event(line, now=latest, bytes_max=len(line))
    except RejectedEvent:
        try:
            key = (_peek.decode(line).id or place).encode()
        except (ValueError, RecursionError):
            key = place.encode()
        return Record(key, line, origin)
    return Record(event.id.encode(), line, origin, event.published_at, event.id, event.version)


def _read_article(file: Path) -> Record:
    text = file.read_bytes().decode("utf-8", errors="replace")
    modified = datetime.fromtimestamp(file.stat().st_mtime, tz=UTC)
    event = article_event(text, name=file.stem, default_time=modified, origin=str(file))
    return Record(event.id.encode(), encode(event), str(file), event.published_at, event.id, event.version)


def article_event(text: str, *, name: str, default_time: datetime, origin: str = "article") -> Event:
    """Make an event from a text article.

    The form: first a summary and a headline (the headline is the shorter one without a full stop) or a
    headline alone, then paragraphs; at the end, in any order, optional lines ``Source: ...``,
    ``Published: ...`` (RFC 3339 or a bare date; UTC unless it says) and ``URL: ...``. Other lines stay in the
    text.

    Parameters
    ----------
    text : str
        The file's content.
    name : str
        Start of the event id; the rest is a hash of the content, so the same article is the same event.
    default_time : datetime
        ``published_at`` when the article names none.
    origin : str
        The file, for the message.

    Returns
    -------
    Event

    Raises
    ------
    ConfigurationError
        When the date cannot be read: another one in its place would count an old article as of today.
    """
    lines = [line.strip() for line in text.replace("\r\n", "\n").replace("\0", " ").split("\n")]
    metadata: dict[str, str] = {}
    published_at = default_time
    while lines and (not lines[-1] or (match := _METADATA.match(lines[-1]))):
        if lines[-1] and match is not None:
            label, content = match[1].lower(), match[2].strip()
            metadata[label] = content
            if label == "published":
                published_at = _time(content, f"{origin}:{len(lines)}")
        lines.pop()
    paragraphs = [line for line in lines if line]
    title = ""
    head = paragraphs[:2]
    if len(head) == 2 and _is_headline(head[1]) and not _is_headline(head[0]):  # noqa: PLR2004 - summary and headline
        title = paragraphs.pop(1)
    elif head and _is_headline(head[0]):
        title = paragraphs.pop(0)
    return Event(
        id=f"{name[:200]}-{content_id(text)[:12]}",
        published_at=published_at,
        title=title,
        text="\n".join(paragraphs),
        source=metadata.get("source", ""),
        url=metadata.get("url", ""),
    )


def _is_headline(line: str) -> bool:
    return len(line) <= HEADLINE_CHARACTERS_MAX and not line.endswith((".", "!", "?", "”", '"'))


def _time(text: str, place: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.upper())
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        message = f"{place}: Published: {text!r} is no date: expected 2024-09-16T10:00:00Z or 2024-09-16"
        raise ConfigurationError(message) from None
