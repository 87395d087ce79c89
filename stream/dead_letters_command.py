"""``stancewatch dead-letters``: the commands and what they show."""

from __future__ import annotations

import base64
import json
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from stream.errors import ConfigurationError, Reason, Stage, StancewatchError
from stream.options import BrokerOption, DebugOption, JsonOption, run, setup_logging
from stream.settings import load_settings
from stream.view import out, print_table, progress_bar

if TYPE_CHECKING:
    from stream.dead_letters import DeadLetters
    from stream.letters import Letter, Status

__all__ = ["dead_letters", "shown_bytes"]

KEY_SHOWN_MAX = 40
RESENT_HEADING = "resent"
READING, RESENDING = "reading dead letters", "resending"

dead_letters = typer.Typer(
    name="dead-letters",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, show and resend what the worker rejected.\n\n"
    "Example: stancewatch dead-letters list --since 2h\n\n"
    "Example: stancewatch dead-letters resend --reason unclassifiable --dry-run",
)

ReasonOption = Annotated[Reason | None, typer.Option(help="Only letters of this reason.")]
StageOption = Annotated[Stage | None, typer.Option(help="Only letters of this stage.")]
SinceOption = Annotated[
    str | None, typer.Option(help="Only letters that failed since: an age (2h, 7d) or a time (RFC 3339).")
]
IdOption = Annotated[str | None, typer.Option("--id", help="Only letters under this key (the event's id).")]


@dead_letters.command("list")
def list_letters(
    broker: BrokerOption = None,
    reason: ReasonOption = None,
    stage: StageOption = None,
    since: SinceOption = None,
    event_id: IdOption = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many, the newest ones; 0 for all.")] = 50,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List dead letters, the newest last.

    The column "resent" tells how often the record was sent again, "status" what a resend would do: open
    (sends it), resent (only with --again), failed_again (a newer letter stands for it), unsendable
    (not from this log, or without key and bytes).

    Example: stancewatch dead-letters list --broker 127.0.0.1:9092 --reason invalid_json --since 2h

    Example: stancewatch dead-letters list --broker 127.0.0.1:9092 --limit 0 --json
    """
    box, found = _find(broker, _wanted(reason, stage, since, event_id), debug=debug)
    shown = found[-limit:] if limit else found
    if as_json:
        rows = [_row(box, letter, status) for letter, status in shown]
        out.print_json(json.dumps({"matching": len(found), "letters": rows}), indent=None)
        return
    if not found:
        out.print("no dead letters" + (" that match" if reason or stage or since or event_id else ""))
        return
    print_table(_table(box, shown))
    if len(shown) < len(found):
        out.print(f"the newest {len(shown)} of {len(found)}; --limit 0 shows all")


@dead_letters.command()
def show(
    which: Annotated[
        str, typer.Argument(metavar="PARTITION:OFFSET|ID", help="Place of the letter, or the event's id.")
    ],
    broker: BrokerOption = None,
    raw: Annotated[bool, typer.Option("--raw", help="Write only the original bytes, unchanged.")] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show one letter: headers and the original bytes; with an id, every letter under it.

    Example: stancewatch dead-letters show 2:17 --broker 127.0.0.1:9092

    Example: stancewatch dead-letters show 2:17 --broker 127.0.0.1:9092 --raw > record.json
    """
    from stream.letters import Filter, position_of  # noqa: PLC0415 - keeps --help fast

    position = position_of(which)
    box, found = _find(broker, Filter(position=position), debug=debug) if position else (None, [])
    if box is None or not found:
        box, found = _find(broker, Filter(key=which.encode()), debug=debug)
    if not found:
        message = f"no dead letter {which!r}: `stancewatch dead-letters list` shows their places and ids"
        raise StancewatchError(message)
    if raw and len(found) > 1:
        places = ", ".join(letter.position for letter, _ in found)
        message = f"{len(found)} letters have the id {which!r}: give --raw one of {places}"
        raise StancewatchError(message)
    statuses = {letter.position: status for letter, status in found}
    whole = run(_gathered(box, [letter for letter, _ in found]))
    if raw:
        sys.stdout.buffer.write(whole[0].value or b"")
        sys.stdout.buffer.flush()
        return
    rows = [{**_row(box, letter, statuses[letter.position]), **_content(letter)} for letter in whole]
    if as_json:
        out.print_json(json.dumps({"letters": rows}), indent=None)
        return
    for letter, row in zip(whole, rows, strict=True):
        _print_letter(box, letter, row)


@dead_letters.command()
def resend(
    broker: BrokerOption = None,
    reason: ReasonOption = None,
    stage: StageOption = None,
    since: SinceOption = None,
    event_id: IdOption = None,
    partition: Annotated[int | None, typer.Option(min=0, help="With --offset: this letter only.")] = None,
    offset: Annotated[int | None, typer.Option(min=0, help="With --partition: this letter only.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Also letters that were resent before.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be sent.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Send letters to the topic they came from, byte for byte and under their key; without filters, all.

    For after the cause was mended (a new model, more time for a date ahead, a fixed decoder). What was resent
    is remembered and left out the next time. Sent twice, an event counts once. What fails again comes back as
    a new letter that tells how often it was sent.

    Example: stancewatch dead-letters resend --broker 127.0.0.1:9092 --reason unclassifiable

    Example: stancewatch dead-letters resend --broker 127.0.0.1:9092 --partition 2 --offset 17 --yes
    """
    from stream.letters import Status, select  # noqa: PLC0415 - keeps --help fast

    if (partition is None) != (offset is None):
        message = "--partition and --offset belong together"
        raise typer.BadParameter(message)
    position = None if partition is None or offset is None else (partition, offset)
    box, found = _find(broker, _wanted(reason, stage, since, event_id, position), debug=debug)
    if position and not found:
        message = f"no such dead letter {partition}:{offset}: `stancewatch dead-letters list` shows them"
        raise StancewatchError(message)
    chosen = select(found, again=again)
    places = {letter.position for letter in chosen}
    left = Counter(status for _, status in found) - Counter({Status.OPEN: len(found)})
    if again:
        del left[Status.RESENT]
    if not (as_json or dry_run) and chosen:
        reasons = Counter(letter.reason for letter in chosen)
        counted = ", ".join(f"{_line(name)} {count}" for name, count in sorted(reasons.items()))
        out.print(f"{_letters(len(chosen))} ({counted}) to {box.settings.events_topic}", markup=False)
    sent = 0
    if chosen and not dry_run:
        _confirm(yes=yes)
        with progress_bar(RESENDING) as progress:
            box.progress = partial(progress, RESENDING)
            sent = run(box.resend(chosen))
    if as_json:
        skipped = {status.value: left[status] for status in Status if status is not Status.OPEN}
        told = {"selected": len(chosen), "sent": sent, "skipped": skipped, "dry_run": dry_run}
        rows = [_row(box, letter, status) for letter, status in found if letter.position in places]
        out.print_json(json.dumps({**told, "letters": rows}), indent=None)
        return
    if dry_run and chosen:
        print_table(_table(box, [pair for pair in found if pair[0].position in places]))
    out.print(f"{_letters(len(chosen))} would be resent" if dry_run else f"{_letters(sent)} resent")
    hints = {
        Status.RESENT: "resent before (--again sends them once more)",
        Status.FAILED_AGAIN: "failed again: their newer letters stand for them",
        Status.UNSENDABLE: f"cannot be sent: not from {box.settings.events_topic}, or without key and bytes",
    }
    for status, hint in hints.items():
        if left[status]:
            out.print(f"{left[status]} {hint}", markup=False)


def _wanted(
    reason: Reason | None,
    stage: Stage | None,
    since: str | None,
    event_id: str | None,
    position: tuple[int, int] | None = None,
) -> Any:
    from stream.letters import Filter, parse_since  # noqa: PLC0415

    moment = parse_since(since, datetime.now(UTC)) if since else None
    return Filter(reason, stage, moment, event_id.encode() if event_id is not None else None, position)


def _find(broker: str | None, wanted: Any, *, debug: bool) -> tuple[DeadLetters, list[tuple[Letter, Status]]]:
    """Read all letters, keep those that are wanted."""
    from stream.dead_letters import DeadLetters  # noqa: PLC0415

    setup_logging(debug=debug)
    with progress_bar(READING) as progress:
        box = DeadLetters(load_settings(broker=broker), partial(progress, READING))
        return box, run(box.find(wanted))


async def _gathered(box: DeadLetters, letters: Sequence[Letter]) -> list[Letter]:
    return [letter async for letter in box.contents(letters)]


def _confirm(*, yes: bool) -> None:
    """Ask on a terminal; elsewhere --yes is needed.

    Raises
    ------
    ConfigurationError
        When nobody can be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        message = "nobody to ask here: give --yes to resend, or --dry-run to see what would be sent"
        raise ConfigurationError(message)
    typer.confirm("send them?", abort=True, err=True)


def _letters(count: int) -> str:
    return f"{count} letter{'' if count == 1 else 's'}"


def _table(box: DeadLetters, pairs: Sequence[tuple[Letter, Status]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("partition", "offset"):
        table.add_column(name, justify="right")
    for name in ("failed_at", "reason", "stage", "origin", "key"):
        table.add_column(name, no_wrap=True)
    table.add_column("size", justify="right")
    table.add_column(RESENT_HEADING, justify="right")
    table.add_column("status")
    for letter, status in pairs:
        row = _row(box, letter, status)
        moment = letter.failed_at.strftime("%Y-%m-%d %H:%M:%SZ") if letter.failed_at else "-"
        origin = f"{letter.topic} {letter.origin[0]}:{letter.origin[1]}" if letter.origin else "-"
        key = _line(shown_bytes(letter.key))
        key = key if len(key) <= KEY_SHOWN_MAX else f"{key[: KEY_SHOWN_MAX - 3]}..."
        texts = [moment, _line(letter.reason) or "-", _line(letter.stage) or "-", _line(origin), key]
        numbers = [str(letter.size), str(row["resent"])]
        table.add_row(str(letter.partition), str(letter.offset), *map(escape, texts), *numbers, status.value)
    return table


def _row(box: DeadLetters, letter: Letter, status: Status) -> dict[str, Any]:
    """A letter as JSON."""
    origin = letter.origin or (None, None)
    key: dict[str, Any] = {"key": None}
    if letter.key is not None:
        key = _text_or_base64("key", letter.key)
    return {
        "partition": letter.partition,
        "offset": letter.offset,
        "failed_at": letter.failed_at.isoformat() if letter.failed_at else None,
        "reason": letter.reason,
        "stage": letter.stage,
        "detail": letter.detail,
        "origin": {"topic": letter.topic, "partition": origin[0], "offset": origin[1]},
        **key,
        "size": letter.size,
        "resent": box.times(letter),
        "resent_from": letter.resent_from and "{}:{}:{}".format(*letter.resent_from),
        "status": status.value,
    }


def _content(letter: Letter) -> dict[str, Any]:
    headers = {name: (value or b"").decode(errors="backslashreplace") for name, value in letter.headers}
    value = {"value": None} if letter.value is None else _text_or_base64("value", letter.value)
    return {"headers": headers, **value}


def _text_or_base64(name: str, content: bytes) -> dict[str, Any]:
    try:
        return {name: content.decode()}
    except UnicodeDecodeError:
        return {name: None, f"{name}_base64": base64.b64encode(content).decode()}


def _print_letter(box: DeadLetters, letter: Letter, row: dict[str, Any]) -> None:
    out.print(f"{box.topic} {letter.position}", style="bold", markup=False)
    for name, value in row["headers"].items():
        out.print(f"{_line(name):14} {_line(value)}", markup=False)
    out.print(f"{'key':14} {_line(shown_bytes(letter.key))}", markup=False)
    out.print(f"{'size':14} {letter.size} bytes")
    out.print(f"{RESENT_HEADING:14} {row['resent']} times, now {row['status']}")
    out.print()
    out.print(shown_bytes(letter.value), markup=False)
    out.print()


def shown_bytes(content: bytes | None) -> str:
    """Bytes for people: text when they are UTF-8, with control characters made visible, else base64."""
    if not content:
        return "(none)" if content is None else "(empty)"
    try:
        return _visible(content.decode())
    except UnicodeDecodeError:
        return f"base64: {base64.b64encode(content).decode()}"


def _visible(text: str) -> str:
    """Escape what could steer a terminal; line ends and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def _line(text: str) -> str:
    """The same in one line."""
    return _visible(text).replace("\n", "\\n").replace("\t", "\\t")
