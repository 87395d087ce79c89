"""A real server in a thread of its own, and Debian's Chromium."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from prometheus_client import CollectorRegistry

from stream.api import Api
from stream.article_feed import ArticleFeed
from stream.schema import Assessment
from stream.settings import load_settings
from stream.web import WebServer, listen
from tests.unit.test_api import FakeHost

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Server:
    """The real API and page, on a free port; what they show is set by tests."""

    def __init__(self) -> None:
        self.settings = load_settings(broker="localhost:9", store="memory", window_clock="event")
        self.host = FakeHost()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.feed = ArticleFeed(self.settings)
        self.feed.caught_up = True
        self._web = WebServer(
            CollectorRegistry(),
            lambda: "",
            listen("127.0.0.1", 0),
            add_routes=Api(self.settings, self.feed, self.host).add_to,
        )
        self._do(self._web.start())
        self.address = self._web.address

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def take(self, *assessments: Assessment) -> None:
        """Let the store have them."""
        self._do(self.feed.ask(lambda: self.feed.store.apply(assessments)))

    def close(self) -> None:
        """Stop everything."""
        self._do(self._web.stop())
        self._do(self.feed.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def server() -> Iterator[Server]:
    """An empty one."""
    running = Server()
    yield running
    running.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for all tests of a module; each takes a fresh profile of it.

    Not of the session: while Playwright's synchronous API is open, its event loop counts as running in this
    thread, and every other test that calls ``asyncio.run`` fails.
    """
    found = shutil.which("chromium")
    if found is None:
        if os.environ.get("STANCEWATCH_REQUIRE_CHROMIUM"):
            pytest.fail("chromium is required here: apt-get install chromium")
        pytest.skip("no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


class Visit:
    """A page in a fresh profile, with everything it complained of and asked for."""

    def __init__(self, context: BrowserContext, base: str) -> None:
        self.base = base
        self.page: Page = context.new_page()
        self.page.set_default_timeout(8000)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open(self, path: str = "/") -> Page:
        """Go there and wait for the figures."""
        self.page.goto(self.base + path)
        expect(self.page.locator("#updated")).not_to_have_text("–")
        return self.page

    def outside(self) -> list[str]:
        """Requests to anything but the server."""
        return [url for url in self.requests if not url.startswith((f"{self.base}/", "data:"))]


@pytest.fixture
def visit(chromium: Browser, server: Server) -> Iterator[Callable[..., Visit]]:
    """Opens pages; at the end none may have complained or asked for anything outside."""
    contexts: list[BrowserContext] = []
    visits: list[Visit] = []

    def make(**options: Any) -> Visit:
        options = {"viewport": {"width": 1440, "height": 900}, "reduced_motion": "no-preference", **options}
        contexts.append(chromium.new_context(**options))
        visits.append(Visit(contexts[-1], server.address))
        return visits[-1]

    yield make
    for context in contexts:
        context.close()
    assert [complaint for one in visits for complaint in one.complaints] == []
    assert [url for one in visits for url in one.outside()] == []
