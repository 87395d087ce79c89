"""The HTTP surface of a process: ``/metrics``, ``/healthz``, ``/readyz`` and what it adds; read-only."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any

from aiohttp import web
from mode import Service
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from stream.errors import ConfigurationError

__all__ = ["WebServer", "listen"]

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Server": "stancewatch",  # by default the versions of Python and aiohttp
    "X-Content-Type-Options": "nosniff",
}
"""Of every answer, errors included: nothing that a browser should run, frame or keep."""

log = logging.getLogger("stancewatch.web")


def listen(host: str, port: int, setting: str = "STANCEWATCH_METRICS_PORT") -> socket.socket:
    """Bind a port; 0 takes a free one.

    Parameters
    ----------
    host : str
    port : int
    setting : str
        The one to change when that fails.

    Raises
    ------
    ConfigurationError
        When the port is taken or the address is not ours.
    """
    try:
        return socket.create_server((host, port))
    except OSError as error:
        message = (
            f"cannot serve metrics on {host}:{port}: {error.strerror}."
            f" Set {setting} to a free port, or 0 for any"
        )
        raise ConfigurationError(message) from None


class WebServer(Service):  # type: ignore[misc]  # mode ships no types
    """Serves in the worker's event loop, so a stalled loop shows as a failing probe.

    Parameters
    ----------
    registry : CollectorRegistry
        What ``/metrics`` exposes; OpenMetrics when the scraper asks for it.
    not_ready : callable
        Gives the reason why the worker cannot work, or an empty string.
    listener : socket
        Bound already (see :func:`listen`), so that a taken port is told before anything starts.
    add_routes : callable
        Adds what is served beside these three (``stream.api``).
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        not_ready: Callable[[], str],
        listener: socket.socket,
        *,
        add_routes: Callable[[web.UrlDispatcher], None] = lambda _router: None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.registry = registry
        self.add_routes = add_routes
        self.not_ready = not_ready
        self.listener = listener
        self._runner: web.AppRunner | None = None

    @property
    def address(self) -> str:
        """``http://host:port``."""
        host, port = self.listener.getsockname()[:2]
        return f"http://{host}:{port}"

    async def on_start(self) -> None:
        """Begin to answer."""
        routes = web.Application()
        routes.router.add_get("/metrics", self._metrics)
        routes.router.add_get("/healthz", self._healthz)
        routes.router.add_get("/readyz", self._readyz)
        self.add_routes(routes.router)
        routes.on_response_prepare.append(_add_headers)
        self._runner = web.AppRunner(routes, access_log=None)
        await self._runner.setup()
        await web.SockSite(self._runner, self.listener).start()
        log.info("metrics on %s/metrics", self.address)

    async def on_stop(self) -> None:
        """Close the port."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        encoder, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encoder(self.registry), headers={"Content-Type": content_type})

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        reason = self.not_ready()
        return web.Response(text=f"{reason or 'ready'}\n", status=503 if reason else 200)


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    own = response.headers.get("Content-Security-Policy")  # the page's, which allows its own script
    response.headers.update(HEADERS if own is None else HEADERS | {"Content-Security-Policy": own})
