"""Training: labelled texts in, fitted and calibrated estimators out; a pure function of the data."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
from sklearn.model_selection import GroupKFold

from classifiers.errors import DataError
from classifiers.stance import StanceClassifier
from classifiers.text import clean_feed
from classifiers.topic import TopicClassifier

__all__ = [
    "STANCES",
    "Example",
    "data_hash",
    "load_examples",
    "real_examples",
    "shipped_examples",
    "train_models",
]

STANCES = ("favor", "against", "neutral")
FOLDS = 5
# Real rows are what the model will meet; measured on out-of-fold scores, 2 to 5 give the same within noise.
REAL_WEIGHT_TOPIC = 2.0
REAL_WEIGHT_STANCE = 3.0
CALIBRATION_ROWS_MIN = 200
EXAMPLES_MIN = 20


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled text: its topics, and the stance toward each; `source` names the outlet of a real one."""

    text: str
    topics: tuple[str, ...] = ()
    stance: dict[str, str] = field(default_factory=dict)
    source: str = ""


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
    """Passages written for this project, as they come with the package."""
    source = resources.files("classifiers.data").joinpath("passages.jsonl")
    return _parse(source.read_text(encoding="utf-8").splitlines(), "passages.jsonl")


def real_examples(texts: Path, split: Literal["train", "dev"]) -> list[Example]:
    """Real headlines with summaries that we labelled; the texts are their publishers' and stay there.

    Parameters
    ----------
    texts : Path
        Folder that holds ``technews-2023/tech.jsonl.gz`` and ``technews-2023/background.jsonl.gz``.
    split : {"train", "dev"}
        ``dev`` is by other sources and later dates; training never sees it.

    Raises
    ------
    DataError
        When the texts are not there or a labelled row is missing in them.
    """
    rows: dict[str, dict[str, str]] = {}
    for name in ("tech", "background"):
        file = texts / "technews-2023" / f"{name}.jsonl.gz"
        try:
            with gzip.open(file, "rt", encoding="utf-8") as lines:
                rows |= {row["id"]: row for row in map(json.loads, lines)}
        except OSError as error:
            message = f"cannot read the texts of the labelled rows, {file}: {error.strerror or error}"
            raise DataError(message) from None
    labels = resources.files("classifiers.data").joinpath("technews_labels.jsonl").read_text(encoding="utf-8")
    examples = []
    for label in map(json.loads, labels.splitlines()):
        if label["split"] != split:
            continue
        if label["id"] not in rows:
            message = f"{texts}: the labelled row {label['id']} is not among the texts"
            raise DataError(message)
        row = rows[label["id"]]
        examples.append(
            Example(clean_feed(row["text"]), tuple(label["topics"]), label["stance"], row["source"])
        )
    return examples


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


def train_models(
    examples: Sequence[Example], *, progress: Callable[[str], None] = lambda _: None
) -> tuple[TopicClassifier, StanceClassifier]:
    """Fit both estimators and calibrate them on out-of-fold scores.

    Calibration uses the real rows alone when there are at least 200, in folds by source, because their class
    shares are those of the stream; otherwise all rows.

    Parameters
    ----------
    examples : sequence of Example
    progress : callable
        Told what is being done.

    Returns
    -------
    (TopicClassifier, StanceClassifier)
        The same data gives the same weights.

    Raises
    ------
    DataError
        With fewer than 20 texts, or none with a topic.
    """
    topical = sum(bool(example.topics) for example in examples)
    if len(examples) < EXAMPLES_MIN or topical == 0:
        message = (
            f"{len(examples)} labelled texts, {topical} of them with a topic: at least {EXAMPLES_MIN} are"
            " needed, with and without each topic (some hundreds for a usable model)"
        )
        raise DataError(message)
    real = [example for example in examples if example.source]
    judged = real if len(real) >= CALIBRATION_ROWS_MIN else list(examples)
    kept = [example for example in examples if not example.source] if judged is real else []
    classes = sorted({topic for example in examples for topic in example.topics})

    def fit_topic(part: Sequence[Example]) -> TopicClassifier:
        rows = [*kept, *part]
        weight = np.array([REAL_WEIGHT_TOPIC if row.source else 1.0 for row in rows])
        return TopicClassifier().fit([row.text for row in rows], [row.topics for row in rows], weight)

    def fit_stance(part: Sequence[Example]) -> StanceClassifier:
        texts, topics, stances, weight = _pairs([*kept, *part])
        return StanceClassifier().fit(texts, topics, stances, np.array(weight))

    topic_scores = np.zeros((len(judged), len(classes)), dtype=np.float32)
    judged_pairs = _pairs(judged)
    owner = [i for i, example in enumerate(judged) for _ in example.topics]
    stance_scores = np.zeros((len(owner), len(STANCES)), dtype=np.float32)
    groups = [example.source or str(i) for i, example in enumerate(judged)]
    folds = GroupKFold(FOLDS, shuffle=True, random_state=7).split(groups, groups=groups)
    for number, (seen, held_out) in enumerate(folds, start=1):
        progress(f"fold {number} of {FOLDS}")
        part = [judged[i] for i in seen]
        topic_scores[held_out] = fit_topic(part).decision_function([judged[i].text for i in held_out])
        pairs = np.flatnonzero(np.isin(owner, held_out))
        texts = [judged_pairs[0][i] for i in pairs]
        stance_scores[pairs] = fit_stance(part).decision_function(texts, [judged_pairs[1][i] for i in pairs])
    progress("all rows")
    topic_model = fit_topic(judged).calibrate(topic_scores, [example.topics for example in judged])
    return topic_model, fit_stance(judged).calibrate(stance_scores, judged_pairs[2])


def _pairs(examples: Iterable[Example]) -> tuple[list[str], list[str], list[str], list[float]]:
    """Text, topic, stance and weight of every topic of every example."""
    rows = [
        (example.text, topic, example.stance[topic], REAL_WEIGHT_STANCE if example.source else 1.0)
        for example in examples
        for topic in example.topics
    ]
    texts, topics, stances, weights = (list(column) for column in zip(*rows, strict=True))
    return texts, topics, stances, weights
