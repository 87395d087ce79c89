"""The values of discovery: topics as they are published, what happens to them, what a refit found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

__all__ = ["Cluster", "Event", "EventKind", "Signal", "Topic", "label_of"]

LABEL_WORDS = 3

EventKind = Literal["born", "split", "merged", "died", "revived", "renamed", "update"]
Signal = Literal["noise", "weak", "strong", "fading"]


class Event(msgspec.Struct, frozen=True):
    """What happened to a topic at a refit; `other` is the topic it split from or merged into."""

    kind: EventKind
    topic: str
    time: float
    other: str = ""


class Topic(msgspec.Struct, kw_only=True):
    """One topic, as it stands on ``news.emerging-topics``.

    Attributes
    ----------
    id : str
        Never used again for another topic.
    label : str
        Three words; stays while one of them is among the topic's ten.
    words : list of str
        Ten, as of the last refit.
    weights : dict of str to float
        Vocabulary, length 1.
    centroid : list of float
        Mean of its documents' vectors.
    born, seen : float
        Event time (POSIX seconds) of the first refit, and of the last in which it had documents.
    state : str
        ``living``, ``merged`` or ``died``.
    other : str
        What it split from or merged into.
    documents, copies : int
        Distinct documents in the window, and copies of them that were not counted.
    growth, p_value, q_value : float
        See :mod:`classifiers.discovery.signals`.
    signal : str
    examples : list of list of str
        Id and beginning of the most typical documents.
    members : list of str
        Ids of its documents in the window, the newest; what a restart knows documents by.
    history : dict of str to list of int
        By UTC day (days since 1970): its documents, and all of the window.
    event : str
        What the last refit did to it.
    """

    id: str
    label: str
    born: float
    seen: float
    words: list[str] = []
    weights: dict[str, float] = {}
    centroid: list[float] = []
    state: Literal["living", "merged", "died"] = "living"
    other: str = ""
    documents: int = 0
    copies: int = 0
    recent: int = 0
    growth: float = 1.0
    p_value: float = 1.0
    q_value: float = 1.0
    signal: Signal = "noise"
    examples: list[list[str]] = []
    members: list[str] = []
    history: dict[str, list[int]] = {}
    event: EventKind = "update"


class Cluster(msgspec.Struct, frozen=True):
    """What a refit found: indices into the window, and vocabulary."""

    members: list[int]
    weights: dict[str, float]
    words: list[str]


def label_of(words: Sequence[str]) -> str:
    """Name for people: three words, none a part of another."""
    chosen: list[str] = []
    for word in words:
        if not any(word in other or other in word for other in chosen):
            chosen.append(word)
    return ", ".join(chosen[:LABEL_WORDS])
