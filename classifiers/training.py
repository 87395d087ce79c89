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
from numpy.typing import NDArray
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
# Real rows are what the model will meet; written ones know paragraphs of articles and near misses, which
# more weight of real rows forgets, in training as in calibration (benchmarks/EXPERIMENTS.md).
REAL_WEIGHT_TOPIC = 8.0
REAL_WEIGHT_TOPIC_CALIBRATION = 4.0
NEAR_MISS_WEIGHT_TOPIC = 3.0  # of written texts without a topic
REAL_WEIGHT_STANCE = 3.0
CALIBRATION_ROWS_MIN = 200
EXAMPLES_MIN = 20


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled text: its topics, and the stance toward each.

    `source` names the outlet of a real one; `batch` the batch of written articles that a paragraph is from;
    `id` the row in its file (its number where the row has no id), for reports that must not quote texts;
    `unread`: no author of stance frames has read this real one.
    """

    text: str
    topics: tuple[str, ...] = ()
    stance: dict[str, str] = field(default_factory=dict)
    source: str = ""
    batch: str = ""
    id: str = ""
    unread: bool = False


def load_examples(path: Path) -> list[Example]:
    """Read rows ``{"text", "topics": [...], "stance": {topic: label}}`` from a JSON lines file.

    Raises
    ------
    DataError
        With file and line when a row is missing something or names an unknown stance.
    """
    try:
        content = path.read_bytes()
        text = content.decode()
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise DataError(message) from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"{path}:{line}: byte {content[error.start]:#x} is no UTF-8: save the file as UTF-8"
        raise DataError(message) from None
    return _parse(text, str(path))


def shipped_examples() -> list[Example]:
    """Passages written for this project, as they come with the package."""
    source = resources.files("classifiers.data").joinpath("passages.jsonl")
    return _parse(source.read_text(encoding="utf-8"), "passages.jsonl")


def real_examples(texts: Path, split: Literal["train", "dev"]) -> list[Example]:
    """Real headlines with summaries that we labelled; the texts are their publishers' and stay there.

    Parameters
    ----------
    texts : Path
        Folder that holds ``technews-2023/tech.jsonl.gz`` and ``technews-2023/background.jsonl.gz``.
    split : {"train", "dev"}
        ``dev`` is by other sources or of later dates; training never sees it.

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
            Example(
                clean_feed(row["text"]),
                tuple(label["topics"]),
                label["stance"],
                row["source"],
                id=label["id"],
                unread=label["unread"],
            )
        )
    return examples


def _parse(text: str, origin: str) -> list[Example]:
    examples = []
    for number, line in enumerate(text.split("\n"), start=1):  # JSON strings may hold other line separators
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            topics = tuple(row["topics"])
            stance = {topic: row["stance"][topic] for topic in topics}
            batch, row_id = str(row.get("batch", "")), str(row.get("id") or f"row {number}")
            example = Example(str(row["text"]), topics, stance, batch=batch, id=row_id)
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
        content = [example.text, example.topics, example.stance, *(["unread"] if example.unread else [])]
        digest.update(json.dumps(content, sort_keys=True).encode())
    return digest.hexdigest()


def train_models(
    examples: Sequence[Example], *, progress: Callable[[str], None] = lambda _: None
) -> tuple[TopicClassifier, StanceClassifier]:
    """Fit both estimators and calibrate them on out-of-fold scores.

    Calibration uses the real rows and the paragraphs of written articles when there are at least 200, in
    folds by source or batch, because their class shares are nearest to those of a stream; otherwise all rows.
    In the calibration of topics a real row counts as four. Stance is calibrated on real rows alone when there
    are enough, its temperature on those that no author of the frames has read, from 100 such judgements on.

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
        With fewer than 20 texts, none with a topic, a single stance, or so few texts of a topic, without it
        or of a stance that a fold would not know them.
    """
    topical = sum(bool(example.topics) for example in examples)
    if len(examples) < EXAMPLES_MIN or topical == 0:
        message = (
            f"{len(examples)} labelled texts, {topical} of them with a topic: at least {EXAMPLES_MIN} are"
            " needed, with and without each topic (some hundreds for a usable model)"
        )
        raise DataError(message)
    near = [example for example in examples if example.source or example.batch]
    judged = near if len(near) >= CALIBRATION_ROWS_MIN else list(examples)
    kept = (
        [example for example in examples if not (example.source or example.batch)] if judged is near else []
    )
    groups = [example.source or example.batch or str(i) for i, example in enumerate(judged)]
    folds = _folds(kept, judged, groups)

    def fit_topic(part: Sequence[Example]) -> TopicClassifier:
        rows = [*kept, *part]
        weight = np.array([_topic_weight(row) for row in rows])
        return TopicClassifier().fit([row.text for row in rows], [row.topics for row in rows], weight)

    def fit_stance(part: Sequence[Example]) -> StanceClassifier:
        texts, topics, stances, weight = _pairs([*kept, *part])
        return StanceClassifier().fit(texts, topics, stances, np.array(weight))

    topic_scores = np.zeros((len(judged), len(_topics(examples))), dtype=np.float32)
    judged_pairs = _pairs(judged)
    owner = [i for i, example in enumerate(judged) for _ in example.topics]
    stance_scores = np.zeros((len(owner), len(_stances(examples))), dtype=np.float32)
    for number, (seen, held_out) in enumerate(folds, start=1):
        progress(f"fold {number} of {FOLDS}")
        part = [judged[i] for i in seen]
        topic_scores[held_out] = fit_topic(part).decision_function([judged[i].text for i in held_out])
        pairs = np.flatnonzero(np.isin(owner, held_out))
        texts = [judged_pairs[0][i] for i in pairs]
        stance_scores[pairs] = fit_stance(part).decision_function(texts, [judged_pairs[1][i] for i in pairs])
    progress("all rows")
    weight = np.array([REAL_WEIGHT_TOPIC_CALIBRATION if example.source else 1.0 for example in judged])
    topic_model = fit_topic(judged).calibrate(topic_scores, [example.topics for example in judged], weight)
    # Stance is harder to tell in real texts than in written ones: confidence must hold there.
    real = [pair for pair, i in enumerate(owner) if judged[i].source]
    trusted = real if len(real) >= CALIBRATION_ROWS_MIN else list(range(len(owner)))
    stance_model = fit_stance(judged)
    unread = np.array([judged[owner[pair]].unread for pair in trusted])
    return topic_model, stance_model.calibrate(
        stance_scores[trusted], [judged_pairs[2][pair] for pair in trusted], unread
    )


def _topic_weight(example: Example) -> float:
    """How much a text counts when topics are learned."""
    if example.source:
        return REAL_WEIGHT_TOPIC
    return 1.0 if example.topics else NEAR_MISS_WEIGHT_TOPIC


def _topics(examples: Iterable[Example]) -> list[str]:
    return sorted({topic for example in examples for topic in example.topics})


def _stances(examples: Iterable[Example]) -> list[str]:
    return sorted({example.stance[topic] for example in examples for topic in example.topics})


def _folds(
    kept: Sequence[Example], judged: Sequence[Example], groups: Sequence[str]
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rows to learn from (beside `kept`) and to hold out, a pair a fold; all know every topic and stance."""
    rows = [*kept, *judged]
    topics, stances = _topics(rows), _stances(rows)
    if len(stances) == 1:
        message = f"all labelled texts have the stance {stances[0]}: at least two stances are needed"
        raise DataError(message)
    if len(set(groups)) < FOLDS:
        message = (
            f"labelled texts of {len(set(groups))} batches or sources: calibration leaves out one after the"
            f" other and needs at least {FOLDS}; without `batch` each text counts as one"
        )
        raise DataError(message)
    folds = list(GroupKFold(FOLDS, shuffle=True, random_state=7).split(groups, groups=groups))
    kinds = {
        **{f"with the topic {topic}": [topic in row.topics for row in rows] for topic in topics},
        **{f"without the topic {topic}": [topic not in row.topics for row in rows] for topic in topics},
        **{f"of the stance {stance}": [stance in _stances([row]) for row in rows] for stance in stances},
    }
    for name, flags in kinds.items():
        own, others = np.split(np.array(flags), [len(kept)])
        if not own.any() and not all(others[seen].any() for seen, _ in folds):
            message = (
                f"too few labelled texts {name}: {others.sum()}; training leaves out a part after the other"
                " (by batch or source, where given) and must find some in the rest"
            )
            raise DataError(message)
        if not others.any() and "topic" in name:
            message = f"no labelled text {name} has a batch or source; calibration uses those that have"
            raise DataError(message)
    return folds


def _pairs(examples: Iterable[Example]) -> tuple[list[str], list[str], list[str], list[float]]:
    """Text, topic, stance and weight of every topic of every example."""
    rows = [
        (example.text, topic, example.stance[topic], REAL_WEIGHT_STANCE if example.source else 1.0)
        for example in examples
        for topic in example.topics
    ]
    texts, topics, stances, weights = (list(column) for column in zip(*rows, strict=True))
    return texts, topics, stances, weights
