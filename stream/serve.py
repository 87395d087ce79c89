"""``stancewatch serve``: the page and the API in a process of their own, one for all workers."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Sequence
from importlib.metadata import version

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from prometheus_client import CollectorRegistry, Info

from stream.api import Api, HostHealth, State
from stream.article_feed import ArticleCollector, ArticleFeed
from stream.clients import check_broker
from stream.emerging_feed import EmergingFeed
from stream.reading import admin_client, partitions_of, ranges, reader
from stream.settings import Settings
from stream.web import WebServer, listen

__all__ = ["ServeHost", "serve"]

LOOK_SECONDS = 5.0
ANSWER_SECONDS = 15.0

log = logging.getLogger("stancewatch.serve")


class ServeHost:
    """The :class:`stream.api.Host` of this process: it looks at the workers from outside.

    Parameters
    ----------
    settings : Settings
    feed : ArticleFeed
    """

    topics: Sequence[str] = ()

    def __init__(self, settings: Settings, feed: ArticleFeed) -> None:
        self.settings = settings
        self.feed = feed
        self.lag: int | None = None
        self.dead_letters: int | None = None

    def health(self) -> HostHealth:
        """As of the last look."""
        return HostHealth(
            process="serve",
            reason=self.feed.not_ready(),
            lag=self.lag,
            last_event=self.feed.store.assessed / 1e6,
            dead_letters=self.dead_letters,
        )

    @staticmethod
    def state() -> State | None:
        """It has none."""
        return None

    async def watch(self) -> None:
        """Look every few seconds; returns never."""
        while True:
            try:
                async with admin_client(self.settings) as admin, reader(self.settings) as consumer:
                    events = await partitions_of(self.settings, self.settings.events_topic)
                    letters = await partitions_of(self.settings, self.settings.dead_letters_topic)
                    while events and letters:
                        look = self._look(admin, consumer, events, letters)
                        await asyncio.wait_for(look, ANSWER_SECONDS)
                        await asyncio.sleep(LOOK_SECONDS)
            except Exception as error:  # noqa: BLE001 - the feed tells of a broker that is away
                log.debug("cannot look at the workers: %r", error)
            self.lag = self.dead_letters = None
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(
        self,
        admin: AIOKafkaAdminClient,
        consumer: AIOKafkaConsumer,
        events: Sequence[TopicPartition],
        letters: Sequence[TopicPartition],
    ) -> None:
        committed = await admin.list_consumer_group_offsets(self.settings.group, partitions=list(events))
        at = {place: offset.offset for place, offset in committed.items()}
        waiting = await ranges(consumer, events)
        self.lag = sum(max(0, end - max(begin, at.get(place, 0))) for place, (begin, end) in waiting.items())
        kept = await ranges(consumer, letters)
        self.dead_letters = sum(end - begin for begin, end in kept.values())


async def serve(settings: Settings, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises
    ------
    BrokerError
        When the broker does not answer at the start; later that is told on the page.
    """
    await check_broker(settings)
    feed = ArticleFeed(settings)
    host = ServeHost(settings, feed)
    registry = CollectorRegistry()
    registry.register(ArticleCollector(feed))
    Info("stancewatch_build", "Version of this software", registry=registry).info(
        {"version": version("stancewatch")}
    )
    emerging = EmergingFeed(settings)
    routes = Api(settings, feed, host, emerging).add_to
    server = WebServer(registry, feed.not_ready, listener, add_routes=routes)
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with feed, emerging, server:
        server.add_future(host.watch())
        log.info("page on %s/", server.address)
        await stop.wait()


def bound(settings: Settings) -> socket.socket:
    """The port, taken before anything starts."""
    return listen(settings.serve_host, settings.serve_port, "STANCEWATCH_SERVE_PORT or --port")
