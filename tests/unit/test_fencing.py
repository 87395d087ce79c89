"""What recovery believes of a changelog to which a former owner of the partition wrote late."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from faust.types import TP

from stream.app import OWNER_HEADER, StateTable, StreamApp
from tests.stack import settings_for


def table_in(folder: Path) -> StateTable:
    """The counts of a worker with this data folder."""
    return StreamApp(settings_for("127.0.0.1:9", data_dir=str(folder))).counts


def apply(table: StateTable, *records: tuple[int, int, str]) -> None:
    """Recover records: offset, token of the writer, value of one key."""
    place = TP(table.changelog_topic_name, 0)
    messages = [
        SimpleNamespace(
            tp=place,
            partition=0,
            offset=offset,
            headers={OWNER_HEADER: b"%d" % owner},
            key=b"0|1000",
            value=value.encode(),
        )
        for offset, owner, value in records
    ]
    table.apply_changelog_batch([SimpleNamespace(message=message) for message in messages])


def value(table: StateTable) -> bytes | None:
    """What the table believes."""
    return table.value_at(0, b"0|1000")


def test_a_lower_token_behind_a_higher_one_is_late(tmp_path: Path) -> None:
    """It is passed over, and its key noted; the same token and a higher one are believed."""
    table = table_in(tmp_path)
    apply(table, (0, 3, "a"), (1, 5, "b"), (2, 3, "late"))
    assert (value(table), table.late) == (b"b", {0: {b"0|1000"}})
    apply(table, (3, 5, "c"), (4, 4, "late"), (5, 6, "d"))
    assert value(table) == b"d"


@pytest.mark.parametrize("restarts", [False, True], ids=["same process", "another process"])
def test_the_token_is_known_when_recovery_begins_behind_it(tmp_path: Path, *, restarts: bool) -> None:
    """The owner wrote its own token, or recovered it earlier: it need not be read again."""
    table = table_in(tmp_path)
    apply(table, (0, 3, "a"), (1, 5, "b"))
    if restarts:
        table.data._dbs.clear()
        table = table_in(tmp_path)
    apply(table, (2, 3, "late"))
    assert value(table) == b"b"


@pytest.mark.parametrize("restarts", [False, True], ids=["same process", "another process"])
def test_from_its_claim_on_a_worker_believes_its_own_token_only(tmp_path: Path, *, restarts: bool) -> None:
    """What others wrote up to there was recovered or is to be; what they write behind it is late."""
    table = table_in(tmp_path)
    apply(table, (0, 3, "a"))
    table.note_owner(0, 5, 3)
    if restarts:
        table.data._dbs.clear()
        table = table_in(tmp_path)
    apply(table, (1, 3, "b"), (2, 3, "c"), (3, 3, "late"))
    assert value(table) == b"c"


def test_what_is_remembered_here_is_no_part_of_the_state(tmp_path: Path) -> None:
    """Neither a sweep nor a page sees the token."""
    table = table_in(tmp_path)
    apply(table, (0, 3, "a"))
    assert table.next_entries(0, 10) == [(b"0|1000", b"a")]
