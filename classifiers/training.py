"""Training: labelled passages in, a model out; a pure function of data and seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from classifiers.errors import DataError
from classifiers.stance import StanceClassifier
from classifiers.topic import TopicClassifier

__all__ = ["STANCES", "Example", "data_hash", "load_examples", "shipped_examples", "train_models"]

STANCES = ("favor", "against", "neutral")


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled text: its topics, and the stance toward each."""

    text: str
    topics: tuple[str, ...] = ()
    stance: dict[str, str] = field(default_factory=dict)


def load_examples(path: Path) -> list[Example]:
    """Read rows ``{"text", "topics": [...], "stance": {topic: label}}`` from a JSON lines file.

    Raises
    ------
    DataError
        With file and line when a row is missing something or names an unknown stance.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise DataError(message) from None
    return _parse(lines, str(path))


def shipped_examples() -> list[Example]:
    """Passages that come with the package."""
    source = resources.files("classifiers.data").joinpath("passages.jsonl")
    return _parse(source.read_text(encoding="utf-8").splitlines(), "passages.jsonl")


def _parse(lines: Iterable[str], origin: str) -> list[Example]:
    examples = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            topics = tuple(row["topics"])
            example = Example(str(row["text"]), topics, {topic: row["stance"][topic] for topic in topics})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            message = (
                f'{origin}:{number}: expected {{"text", "topics": [...], "stance": {{topic: label}}}},'
                f" got {line[:80]!r} ({type(error).__name__}: {error})"
            )
            raise DataError(message) from None
        unknown = set(example.stance.values()) - set(STANCES)
        if unknown:
            message = f"{origin}:{number}: unknown stance {sorted(unknown)}; expected one of {list(STANCES)}"
            raise DataError(message)
        examples.append(example)
    if not examples:
        message = f"{origin} holds no labelled rows"
        raise DataError(message)
    return examples


def data_hash(examples: Iterable[Example]) -> str:
    """SHA-256 over the content of the examples, in order."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps([example.text, example.topics, example.stance], sort_keys=True).encode())
    return digest.hexdigest()


def train_models(examples: Sequence[Example]) -> tuple[TopicClassifier, StanceClassifier]:
    """Fit both estimators.

    Parameters
    ----------
    examples : sequence of Example

    Returns
    -------
    (TopicClassifier, StanceClassifier)
        The same data gives the same weights.
    """
    topic_model = TopicClassifier().fit([e.text for e in examples], [e.topics for e in examples])
    rows = [(e.text, topic, e.stance[topic]) for e in examples for topic in e.topics]
    texts, topics, stances = zip(*rows, strict=True)
    return topic_model, StanceClassifier().fit(texts, topics, stances)
