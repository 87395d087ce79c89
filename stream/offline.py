"""Classification without a broker: the worker's decoding and model on files."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from classifiers.assessor import Assessor
from classifiers.language import language_of
from stream.errors import RejectedEvent
from stream.schema import Event, content_id, decode_event, encode, make_assessment

__all__ = ["classify_lines", "classify_text"]

BATCH = 256


def classify_text(content: bytes, assessor: Assessor) -> bytes:
    """Assessment of one plain article, as a JSON line; offsets count in the text as given."""
    text = content.decode("utf-8", errors="replace")
    now = datetime.now(UTC)
    event = Event(id=content_id(text), published_at=now, text=text)
    language = language_of("", text)
    (decisions,) = assessor.assess_supported([("", text)], [language])
    return encode(make_assessment(event, decisions, assessor.name, now, language=language))


def classify_lines(content: bytes, assessor: Assessor) -> tuple[Iterator[bytes], list[str]]:
    """Assessments of JSON lines of events, and a message for each line that was rejected."""
    now = datetime.now(UTC)
    events = []
    rejected = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            events.append(decode_event(line, now=now, bytes_max=len(line)))
        except RejectedEvent as rejection:
            rejected.append(f"line {number}: {rejection}")

    def assessments() -> Iterator[bytes]:
        for start in range(0, len(events), BATCH):
            batch = events[start : start + BATCH]
            languages = [language_of(e.title, e.text, e.language) for e in batch]
            documents = [("", "") if e.retracted else (e.title, e.text) for e in batch]
            decided = assessor.assess_supported(documents, languages)
            for event, decisions, language in zip(batch, decided, languages, strict=True):
                yield encode(make_assessment(event, decisions, assessor.name, now, language=language))

    return assessments(), rejected
