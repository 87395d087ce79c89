"""What a classifier says about an article; light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["STANCES", "UNCLEAR", "Field", "Sentence", "StanceLabel", "TopicDecision"]

StanceLabel = Literal["favor", "against", "neutral", "unclear"]
UNCLEAR: Literal["unclear"] = "unclear"
STANCES: tuple[str, ...] = get_args(StanceLabel)
Field = Literal["title", "text"]


@dataclass(frozen=True, slots=True)
class Sentence:
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
