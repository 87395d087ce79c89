"""What a classifier says about an article; light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

__all__ = [
    "STANCES",
    "UNCLEAR",
    "UNCLEAR_BELOW",
    "Expected",
    "Field",
    "Sentence",
    "StanceLabel",
    "TopicDecision",
]

StanceLabel = Literal["favor", "against", "neutral", "unclear"]
UNCLEAR: Literal["unclear"] = "unclear"
UNCLEAR_BELOW = 0.4
"""As in the taxonomy that ships; the metrics of confidence have a bucket that ends here."""
STANCES: tuple[str, ...] = get_args(StanceLabel)
Field = Literal["title", "text"]


class Sentence(NamedTuple):
    """A sentence and its place: characters ``start`` to ``end`` (excluded) of the article's ``field``."""

    text: str
    start: int
    end: int
    field: Field


@dataclass(frozen=True, slots=True)
class TopicDecision:
    """One topic of an article, the stance toward it, their probabilities (0 to 1), the deciding sentences."""

    topic: str
    probability: float
    stance: StanceLabel
    stance_probability: float
    evidence: tuple[Sentence, ...]


class Expected(NamedTuple):
    """What a stream like the training data would show (0 to 1), by rows that training left out for this."""

    stance_probability: float
    """Mean probability of the most probable stance."""
    unclear: float
    """Share of these that are below 0.4, where ``unclear`` begins."""
