"""``stancewatch serve``."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from stream.options import BrokerOption, DebugOption, run, setup_logging
from stream.settings import load_settings

__all__ = ["serve"]


def serve(
    broker: BrokerOption = None,
    host: Annotated[str | None, typer.Option(help="Address to bind to (or STANCEWATCH_SERVE_HOST).")] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="0 takes a free port (or STANCEWATCH_SERVE_PORT)."),
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Serve the page and the API of the articles behind the numbers; one process for all workers.

    It reads news.assessments and keeps the latest articles; it has no part in the counting. A single worker
    serves the same at its own port, with exact counts.

    Example: stancewatch serve --broker 127.0.0.1:9092 --port 9465
    """
    setup_logging(debug=debug)
    settings = load_settings(broker=broker, serve_host=host, serve_port=port)
    from stream.reading import need_broker  # noqa: PLC0415 - keeps --help fast
    from stream.serve import bound  # noqa: PLC0415
    from stream.serve import serve as serve_until_stopped  # noqa: PLC0415

    need_broker(settings)
    with bound(settings) as listener:
        setup_logging(debug=debug, level=logging.INFO)
        run(serve_until_stopped(settings, listener))
