"""The worker's HTTP surface over a real socket: three pages to read, nothing to change."""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
from prometheus_client import CollectorRegistry, Gauge

from stream.web import WebServer, listen

PAGES = ("/metrics", "/healthz", "/readyz")
Answer = tuple[int, dict[str, str], str]


@asynccontextmanager
async def server(not_ready: Callable[[], str] = lambda: "") -> AsyncIterator[tuple[str, int]]:
    """A server of its own on a free port."""
    registry = CollectorRegistry()
    Gauge("stancewatch_example", "An example.", registry=registry).set(7)
    async with WebServer(registry, not_ready, listen("127.0.0.1", 0)) as web:
        yield web.listener.getsockname()[:2]


async def ask(address: tuple[str, int], method: str, path: str, body: bytes | None = None) -> Answer:
    """What a plain HTTP client gets."""
    return await asyncio.to_thread(partial(_ask, address, method, path, body))


def _ask(address: tuple[str, int], method: str, path: str, body: bytes | None) -> Answer:
    client = http.client.HTTPConnection(*address, timeout=10)
    try:
        client.request(method, path, body)
        answer = client.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode()
    finally:
        client.close()


async def test_the_three_pages_are_served() -> None:
    """What the README names, and a HEAD of it."""
    async with server() as address:
        status, headers, text = await ask(address, "GET", "/metrics")
        assert (status, "stancewatch_example 7.0" in text) == (200, True)
        assert headers["content-type"].startswith("text/plain")
        assert (await ask(address, "GET", "/healthz"))[::2] == (200, "ok\n")
        assert (await ask(address, "GET", "/readyz"))[::2] == (200, "ready\n")
        assert [(await ask(address, "HEAD", page))[::2] for page in PAGES] == [(200, "")] * 3


async def test_a_worker_that_is_not_ready_says_why() -> None:
    """503 and the reason."""
    async with server(lambda: "waiting for partitions") as address:
        assert (await ask(address, "GET", "/readyz"))[::2] == (503, "waiting for partitions\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
async def test_nothing_can_be_changed(method: str) -> None:
    """Every method that is not for reading is refused on every page."""
    async with server() as address:
        for page in PAGES:
            status, headers, _ = await ask(address, method, page, b"x=1")
            assert (status, headers["allow"]) == (405, "GET,HEAD")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/metrics/",
        "/router/stancewatch/x",
        "/stats",
        "/table",
        "/graph",
        "/..%2f..%2fetc/passwd",
        "/favicon.ico",
    ],
)
async def test_there_is_nothing_else(path: str) -> None:
    """Neither Faust's own views nor files."""
    async with server() as address:
        assert (await ask(address, "GET", path))[0] == 404


@pytest.mark.parametrize(("method", "path"), [("GET", "/metrics"), ("GET", "/none"), ("POST", "/readyz")])
async def test_every_answer_has_the_security_headers(method: str, path: str) -> None:
    """Nothing to sniff, frame, run or keep, and no versions of software; errors included."""
    async with server() as address:
        _, headers, _ = await ask(address, method, path)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["cache-control"] == "no-store"
    assert headers["server"] == "stancewatch"


async def test_a_failing_page_tells_nothing_of_the_inside() -> None:
    """500 without a traceback or the message of the error."""

    def fails() -> str:
        message = "hunter2"
        raise RuntimeError(message)

    async with server(fails) as address:
        status, headers, text = await ask(address, "GET", "/readyz")
    assert status == 500
    assert "hunter2" not in text
    assert "Traceback" not in text
    assert headers


async def test_what_is_not_http_is_refused() -> None:
    """Garbage is answered with 400, and the server goes on."""
    async with server() as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"\x16\x03\x01 garbage\r\n\r\n")
        line = await asyncio.wait_for(reader.readline(), 10)
        writer.close()
        await writer.wait_closed()
        assert b" 400 " in line
        assert (await ask(address, "GET", "/healthz"))[0] == 200


def test_the_default_address_is_this_machine_only() -> None:
    """A socket that listens on the given address only."""
    with listen("127.0.0.1", 0) as bound:
        assert bound.getsockname()[0] == "127.0.0.1"
        assert bound.family == socket.AF_INET
