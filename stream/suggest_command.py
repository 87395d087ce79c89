"""``stancewatch topics emerging`` and ``stancewatch topics suggest``: from discovery to monitoring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from stream.errors import ConfigurationError
from stream.options import BrokerOption, DebugOption, JsonOption, run, setup_logging
from stream.settings import load_settings
from stream.view import err, out, print_table

if TYPE_CHECKING:
    from classifiers.discovery.topic import Topic

__all__ = ["emerging", "suggest"]


def emerging(broker: BrokerOption = None, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """List the emerging topics of the stream, as `stancewatch discover` published them last.

    Example: stancewatch topics emerging --broker 127.0.0.1:9092
    """
    from stream.emerging import listed, plain_topic, read_topics  # noqa: PLC0415 - keeps --help fast

    setup_logging(debug=debug)
    topics = listed(run(read_topics(load_settings(broker=broker))))
    if as_json:
        out.print_json(json.dumps({"topics": [plain_topic(t, examples=True) for t in topics]}), indent=None)
    else:
        print_topics(topics)


def print_topics(topics: list[Topic]) -> None:
    """A table, strongest signals first."""
    table = Table("id", "label", "signal", box=None, pad_edge=False)
    for name in ("documents", "recent", "growth"):
        table.add_column(name, justify="right")
    table.add_column("words")
    for topic in topics:
        figures = (str(topic.documents), str(topic.recent), f"{topic.growth:.1f}")
        table.add_row(topic.id, topic.label, topic.signal, *figures, " ".join(topic.words))
    print_table(table)


def suggest(
    topic: Annotated[str, typer.Argument(help="Id of an emerging topic, or the beginning of it.")],
    broker: BrokerOption = None,
    found: Annotated[
        Path | None, typer.Option("--from", help="Output of `discover FILE... --json`; else the stream's.")
    ] = None,
    into: Annotated[
        Path | None, typer.Option(help="File of your own topics to add the entry to; else it is printed.")
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Write the entry of a topics.yaml that monitors an emerging topic from now on.

    It has what was found: words, typical articles with their ids. Read it before you use it; give the
    examples stances if you want a stance. `stancewatch topics check --taxonomy FILE` says what it can do.

    Example: stancewatch topics suggest e1f3aa089 --into topics.yaml
    """
    from classifiers.discovery.suggestion import entry  # noqa: PLC0415 - keeps --help fast
    from classifiers.taxonomy import load_taxonomy  # noqa: PLC0415
    from classifiers.user_taxonomy import load_user_taxonomy  # noqa: PLC0415

    setup_logging(debug=debug)
    chosen = _chosen(topic, _from_file(found) if found else _from_stream(broker))
    shipped = {known.id for known in load_taxonomy()}
    exists = into is not None and into.exists()
    own = {known.id for known in load_user_taxonomy(into, shipped)} if into and exists else set()
    examples = [(str(each["id"]), str(each["text"])) for each in chosen["examples"]]
    text = entry(chosen["id"], chosen["label"], chosen["words"], examples, shipped | own)
    if into is None:
        out.print(text, markup=False, end="")
        return
    before = into.read_text(encoding="utf-8") if exists else ""
    try:
        into.write_text(
            before + ("\n" if before and not before.endswith("\n") else "") + text, encoding="utf-8"
        )
    except OSError as error:
        message = f"cannot write {into}: {error.strerror}"
        raise ConfigurationError(message) from None
    name = load_user_taxonomy(into, shipped)[-1].id
    err.print(f"{name} added to {into}; next: stancewatch topics check --taxonomy {into}", markup=False)


def _from_stream(broker: str | None) -> list[dict[str, Any]]:
    from stream.emerging import plain_topic, read_topics  # noqa: PLC0415

    return [plain_topic(each, examples=True) for each in run(read_topics(load_settings(broker=broker)))]


def _from_file(path: Path) -> list[dict[str, Any]]:
    try:
        topics = json.loads(path.read_text(encoding="utf-8"))["topics"]
        complete = all({"id", "label", "words", "examples"} <= set(each) for each in topics)
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise ConfigurationError(message) from None
    except (ValueError, KeyError, TypeError):
        complete = False
    if not complete:
        message = f"{path}: expected the output of `stancewatch discover FILE... --json`"
        raise ConfigurationError(message)
    return list(topics)


def _chosen(wanted: str, topics: list[dict[str, Any]]) -> dict[str, Any]:
    found = [each for each in topics if str(each["id"]).startswith(wanted)]
    if len(found) != 1:
        many = "no" if not found else "more than one"
        message = f"{many} emerging topic begins with {wanted!r}; `stancewatch topics emerging` lists them"
        raise ConfigurationError(message)
    return found[0]
