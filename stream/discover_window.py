"""The documents of the stream that topics are looked for in: from records to a bounded sliding window."""

from __future__ import annotations

from collections import OrderedDict
from datetime import UTC, datetime, timedelta

from classifiers.discovery.window import Document, slide
from stream.errors import RejectedEvent
from stream.schema import Event, decode_assessment, decode_event

__all__ = ["Window", "document_of"]

TAIL = 4
"""So many times the window's documents are read of the log at most: a part of it is outside of the window."""
WAITING_MAX = 20_000
"""Events that wait for their assessment, and assessments for their event; the oldest give way. At least the
tail of the log: one topic of it may be read before the other."""


def read_event(value: bytes | None) -> Event | None:
    """An event, or nothing: what is wrong with it, the worker tells."""
    latest = datetime.max.replace(tzinfo=UTC) - timedelta(days=2)
    try:
        return decode_event(value, now=latest, bytes_max=len(value or b""))
    except RejectedEvent:
        return None


def document_of(value: bytes | None) -> Document | None:
    """The document of an event's record; nothing for what is none, or is retracted."""
    event = read_event(value)
    return None if event is None or event.retracted else _document(event)


def _document(event: Event) -> Document:
    return Document.of(event.id, event.published_at.timestamp(), (event.title, event.text), event.source)


class Window:
    """Joins events with their assessments by id, and keeps the latest documents.

    Only what was assessed is a document: so duplicates, rejected records, other languages and withdrawn
    articles are no part of it. A correction takes the place of the earlier version.

    Parameters
    ----------
    hours : float
    count : int
        Most documents.
    off_topic_only : bool
        Leave out what has a monitored topic already.
    """

    def __init__(self, hours: float, count: int, *, off_topic_only: bool = False) -> None:
        self.hours = hours
        self.count = count
        self.off_topic_only = off_topic_only
        self.documents: dict[str, Document] = {}
        self._versions: OrderedDict[str, int] = OrderedDict()
        # By event id: the version, and what is needed of it; whole events would take gigabytes.
        self._events: OrderedDict[str, tuple[int, Document]] = OrderedDict()
        self._assessments: OrderedDict[str, tuple[int, bool]] = OrderedDict()
        self._newest = 0.0

    @property
    def end(self) -> float:
        """Latest ``published_at``, in POSIX seconds; not after the wall clock."""
        return min(self._newest, datetime.now(UTC).timestamp())

    def add_event(self, value: bytes | None) -> None:
        """Take a record of ``news.events``."""
        if (event := read_event(value)) is None:
            return
        known = self._events.get(event.id)
        if known is None or event.version >= known[0]:
            self._events[event.id] = event.version, _document(event)
            self._events.move_to_end(event.id)
        self._join(event.id)

    def add_assessment(self, value: bytes | None) -> None:
        """Take a record of ``news.assessments``."""
        if (found := decode_assessment(value)) is None:
            return
        known = self._assessments.get(found.event_id)
        if known is None or found.version >= known[0]:
            monitored = self.off_topic_only and bool(found.topics)
            unwanted = found.retracted or found.unsupported_language or monitored
            self._assessments[found.event_id] = found.version, unwanted
            self._assessments.move_to_end(found.event_id)
        self._join(found.event_id)

    def _join(self, id_: str) -> None:
        event, found = self._events.get(id_), self._assessments.get(id_)
        if event is not None and found is not None and event[0] == found[0]:
            del self._events[id_], self._assessments[id_]
            if found[0] >= self._versions.get(id_, 0):
                self._apply(*event, unwanted=found[1])
        waiting_max = max(WAITING_MAX, TAIL * self.count)
        for waiting in (self._events, self._assessments):
            while len(waiting) > waiting_max:
                waiting.popitem(last=False)

    def _apply(self, version: int, document: Document, *, unwanted: bool) -> None:
        self._versions[document.id] = version
        self._versions.move_to_end(document.id)
        if unwanted:
            self.documents.pop(document.id, None)
            return
        self.documents[document.id] = document
        self._newest = max(self._newest, document.time)
        if len(self.documents) > 2 * self.count:
            self.slide()

    def slide(self) -> list[Document]:
        """Forget what has left the window; gives what is in it, by time."""
        kept = slide(self.documents.values(), end=self.end, hours=self.hours, count=self.count)
        ahead = [document for document in self.documents.values() if document.time > self.end]
        self.documents = {document.id: document for document in (*kept, *ahead[: self.count])}
        while len(self._versions) > 4 * self.count:
            self._versions.popitem(last=False)
        return kept
