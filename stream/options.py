"""Options that several commands share, and the set-up of logging."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

__all__ = [
    "AccurateOption",
    "BrokerOption",
    "DebugOption",
    "JsonOption",
    "TextsOption",
    "run",
    "setup_logging",
]

Result = TypeVar("Result")

BrokerOption = Annotated[str | None, typer.Option(help="host:port of a Kafka broker (or STANCEWATCH_BROKER)")]
DebugOption = Annotated[bool, typer.Option(help="Full logs, and tracebacks of errors.")]
TextsOption = Annotated[
    Path | None, typer.Option(help="Folder of the texts of the labelled real rows (or STANCEWATCH_TEXTS)")
]
AccurateOption = Annotated[
    bool,
    typer.Option("--accurate", help="Average with a small transformer: needs stancewatch[accurate], slow."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def setup_logging(*, debug: bool, level: int = logging.WARNING) -> None:
    """Log to standard error; the commands tell in one line what the Kafka client tells in ten."""
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
        force=True,
    )
    silent = not debug and level != logging.INFO
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL if silent else logging.NOTSET)
    logging.getLogger("aiokafka.conn").addFilter(_hide_authentication)  # the same one is added once
    logging.getLogger("stancewatch").setLevel(logging.DEBUG if debug else level)


def _hide_authentication(record: logging.LogRecord) -> bool:
    """Keep out of debug logs what authenticates: with SASL PLAIN that request is the password."""
    arguments = record.args if isinstance(record.args, tuple) else ()
    names = [type(argument).__name__ for argument in arguments]
    record.args = (
        tuple(
            f"{name} (not shown)" if name.startswith("SaslAuthenticate") else argument
            for name, argument in zip(names, arguments, strict=True)
        )
        or record.args
    )
    return True


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run what talks to Kafka; what the broker refuses becomes an error of one line.

    Raises
    ------
    BrokerError
        With the broker's reason.
    """
    from aiokafka.errors import KafkaError  # noqa: PLC0415 - keeps --help fast

    from stream.errors import BrokerError  # noqa: PLC0415

    try:
        return asyncio.run(work)
    except (KafkaError, TimeoutError) as error:
        message = f"the Kafka broker refused or went away: {error!r}. `stancewatch doctor` looks at it"
        raise BrokerError(message) from error
