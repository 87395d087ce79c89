"""Articles and JSON lines as records."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stream.errors import ConfigurationError
from stream.schema import decode_event
from stream.sources import article_event, read_paths
from tests.conftest import SEEDS

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ARTICLE = """A ministry has opened a scheme for chip plants, and the first firms have applied.
Ministry Opens Chip Scheme
The scheme opened on Monday.

It closes in March.
Published: 2024-09-20T08:15:00+02:00
Source: Example Wire
"""


def test_an_article_gives_headline_text_source_and_time() -> None:
    """The user's form: summary, headline, paragraphs, then lines of metadata."""
    event = article_event(ARTICLE, name="001", default_time=NOW)
    assert event.title == "Ministry Opens Chip Scheme"
    assert event.text == (
        "A ministry has opened a scheme for chip plants, and the first firms have applied.\n"
        "The scheme opened on Monday.\nIt closes in March."
    )
    assert event.source == "Example Wire"
    assert event.published_at == datetime(2024, 9, 20, 6, 15, tzinfo=UTC)


def test_an_article_may_begin_with_its_headline() -> None:
    """Without a summary the first line is the headline."""
    event = article_event("A Headline\nText follows here.", name="a", default_time=NOW)
    assert (event.title, event.text, event.published_at) == ("A Headline", "Text follows here.", NOW)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2024-09-16T10:00:00", datetime(2024, 9, 16, 10, tzinfo=UTC)),
        ("2024-09-16 10:00", datetime(2024, 9, 16, 10, tzinfo=UTC)),
        ("2024-09-16", datetime(2024, 9, 16, tzinfo=UTC)),
        ("2024-09-16t10:00:00.5z", datetime(2024, 9, 16, 10, 0, 0, 500_000, tzinfo=UTC)),
        ("2024-09-16T10:00:00-04:00", datetime(2024, 9, 16, 14, tzinfo=UTC)),
    ],
)
def test_a_date_means_the_same_on_every_machine(
    monkeypatch: pytest.MonkeyPatch, written: str, meant: datetime
) -> None:
    """Without an offset it is UTC, whatever the machine's time zone."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        event = article_event(f"Head\nText.\nPublished: {written}", name="a", default_time=NOW)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert event.published_at == meant


@pytest.mark.parametrize("written", ["soon", "16 September 2024", "2024-13-01", "0001-01-01T00:00:00+14:00"])
def test_an_unreadable_date_is_told_with_file_and_line(tmp_path: Path, written: str) -> None:
    """Another date in its place would count an old article as of today."""
    file = tmp_path / "a.txt"
    file.write_text(f"Head\n\nText.\nPublished: {written}\nSource: Wire\n\n")
    with pytest.raises(ConfigurationError, match=r"a\.txt:4: Published: '.*'.*2024-09-16T10:00:00Z"):
        read_paths([file])


def test_the_same_article_is_the_same_event() -> None:
    """The id follows from name and content."""
    ids = {article_event(text, name="a", default_time=NOW).id for text in (ARTICLE, ARTICLE, ARTICLE + "x")}
    assert len(ids) == 2


def test_json_lines_are_passed_on_byte_for_byte(tmp_path: Path) -> None:
    """A malformed line stays malformed, under a key that names its place."""
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"id": "x",  "version": 3}\n\n{"id": "cut\n')
    records = read_paths([file])
    assert [record.value for record in records] == [b'{"id": "x",  "version": 3}', b'{"id": "cut']
    assert [record.key for record in records] == [b"x", b"a.jsonl:3"]
    assert [record.event_id for record in records] == ["", ""]


@pytest.mark.parametrize(
    "line",
    [
        b'{"id": "x", "title": "t", "published_at": "2024-09-16T06:00:00Z", "version": null}',
        b"""{"specversion": "1.0", "id": "ce", "source": "/f", "type": "t",
            "data": {"id": "x", "title": "t", "published_at": "2024-09-16T06:00:00Z"}}""".replace(
            b"\n", b" "
        ),
    ],
)
def test_an_event_goes_under_the_key_that_the_worker_expects(tmp_path: Path, line: bytes) -> None:
    """The id of the event, also within a CloudEvent and beside null fields."""
    (tmp_path / "a.jsonl").write_bytes(line)
    (found,) = read_paths([tmp_path])
    assert (found.key, found.event_id, found.version) == (b"x", "x", 1)


def test_a_folder_is_read_with_its_subfolders() -> None:
    """The seeds: 16 articles and 77 lines."""
    records = read_paths([SEEDS])
    assert len(records) == 93
    events = [decode_event(record.value, now=NOW) for record in records if record.event_id]
    assert len(events) == 92
    assert all(event.title for event in events)


@pytest.mark.parametrize("name", ["missing", "image.png"])
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    """The message says which path and what was expected."""
    (tmp_path / "image.png").touch()
    with pytest.raises(ConfigurationError, match=name):
        read_paths([tmp_path / name])


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    """Nothing to replay is not a success."""
    with pytest.raises(ConfigurationError, match="nothing to replay"):
        read_paths([tmp_path])
