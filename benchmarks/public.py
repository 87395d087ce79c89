"""The classes of the shipped classifiers, trained and tested on public sets with labels of other people.

Each set is trained on its official train part and tested on its official test part. Settings were chosen by
cross-validation on the train parts alone; ``--validate`` does that again and reads no test part. The shipped
model and its taxonomy play no role here, only ``TopicClassifier`` and ``StanceClassifier`` do.

The data may not be passed on: it is read where it lies. The folder holds ``semeval2016-t6``, ``newsmtsc`` and
``ag-news``, each with files of JSON lines, gzip. A set that is absent is skipped.

With ``--accurate`` each decision is the mean of two, as in the tier of that name: of the default classes and
of a linear model on MiniLM. It differs from what ships in that MiniLM stays as it comes: no torch, no LoRA.

Needs ``pip install wordllama tokenizers``; without them the sets that use word vectors are skipped.

Example: ``.venv/bin/python -m benchmarks.public --data ~/public-sets --json public.json``, and
``.venv/bin/python -m benchmarks.public --data ~/public-sets --accurate --vectors /tmp/vectors.npz``
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import GroupKFold, StratifiedKFold, train_test_split
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

from benchmarks.frozen import Frozen
from classifiers.embedding import directions
from classifiers.errors import ModelError
from classifiers.mention import mark
from classifiers.stance import StanceClassifier
from classifiers.topic import TopicClassifier

Row = dict[str, Any]
Labels = NDArray[np.str_]
Vectors = NDArray[np.float32]

FOLDS = 4
DRAWS = 10
SHOTS = 16


@dataclass(frozen=True)
class Score:
    """One figure of a set, 0 to 100."""

    set: str
    metric: str
    value: float
    bars: tuple[float, float] | None = None  # of the default tier, and with --accurate
    published: str = ""
    deviation: float | None = None
    seconds: float = 0.0


def read(folder: Path, *names: str) -> list[Row]:
    """Rows of files of a set."""
    rows = []
    for name in names:
        with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows += [json.loads(line) for line in lines]
    return rows


def labels(rows: Sequence[Row]) -> Labels:
    """What the rows' authors say."""
    return np.array([row["label"] for row in rows])


def macro_f1(truth: Labels, found: Labels) -> float:
    """Mean over classes, 0 to 100."""
    return 100 * float(f1_score(truth, found, average="macro"))


def f_avg(truth: Labels, found: Labels) -> float:
    """Mean of the F1 of favor and against, the official figure of SemEval-2016 task 6, 0 to 100."""
    return 100 * float(f1_score(truth, found, labels=["favor", "against"], average="macro"))


def say(text: str) -> None:
    """Progress, apart from the results."""
    print(text, file=sys.stderr, flush=True)


def centered(seen: Vectors, asked: Vectors) -> tuple[Vectors, Vectors]:
    """Directions of vectors as seen from the mean direction of those `seen` in training."""
    center = directions(seen).mean(axis=0)
    return directions(seen, center), directions(asked, center)


# --- SemEval-2016 task 6 A: tweets, stance toward one of five targets -------------------------------------


def tweet(row: Row) -> str:
    """Tweet without the organisers' own tag, and with the words of each tag behind it."""
    text = row["text"].replace("#SemST", "")
    between = r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])"
    return re.sub(r"#(\w+)", lambda tag: f"#{tag[1]} {re.sub(between, ' ', tag[1])}", text)


def judge_tweets(train: Sequence[Row], test: Sequence[Row], frozen: Frozen | None = None) -> Labels:
    """Stance of each tweet in `test`, by one model of all targets, and where `frozen` one more a target."""
    model = StanceClassifier(C=2.0, balance=1.0, chars=True, embedding=True, sharing=0.3)
    texts, asked = ([tweet(row) for row in rows] for rows in (train, test))
    targets, of_asked = (np.array([row["target"] for row in rows]) for rows in (train, test))
    model.fit(texts, targets.tolist(), labels(train).tolist())
    scores = np.log(model.predict_proba(asked, of_asked.tolist()))
    if frozen:
        seen, vectors = frozen.texts(texts), frozen.texts(asked)
        for target in model.topics_:
            own, its = targets == target, of_asked == target
            x, x_asked = centered(seen[own], vectors[its])
            second = LogisticRegression(C=model.C, class_weight="balanced", max_iter=1000)
            scores[its] += second.fit(x, labels(train)[own]).predict_log_proba(x_asked)
    return np.asarray(model.classes_[scores.argmax(axis=1)])


def score_tweets(rows: Sequence[Row], found: Labels) -> Iterator[Score]:
    """Pooled over targets, over three classes, and the mean over targets, which majorities cannot lift."""
    truth, targets = labels(rows), np.array([row["target"] for row in rows])
    name = "SemEval-2016 T6 A"
    yield Score(name, "F_avg pooled", f_avg(truth, found), (70, 72), "72.9 TimeLMs-2021")
    yield Score(name, "macro F1 of 3 classes", macro_f1(truth, found))
    each = {
        target: f_avg(truth[targets == target], found[targets == target]) for target in np.unique(targets)
    }
    yield Score(name, "F_avg, mean over targets", float(np.mean(list(each.values()))))
    for target, value in each.items():
        yield Score(name, f"F_avg, {target}", value)


def semeval(folder: Path, validate: bool, frozen: Frozen | None) -> Iterator[Score]:
    """Train with the official trial rows."""
    train = read(folder, "train", "dev")
    if validate:
        strata = [row["target"] + row["label"] for row in train]
        splits = StratifiedKFold(FOLDS, shuffle=True, random_state=1).split(train, strata)
        yield from score_tweets(train, out_of_fold(train, list(splits), partial(judge_tweets, frozen=frozen)))
    else:
        test = read(folder, "test")
        yield from score_tweets(test, judge_tweets(train, test, frozen))


# --- NewsMTSC: sentences of political news, sentiment toward a mention ------------------------------------


def judge_mentions(train: Sequence[Row], test: Sequence[Row], frozen: Frozen | None = None) -> Labels:
    """Sentiment toward each mention in `test`, by one model, or two where `frozen`."""
    model = StanceClassifier(C=1.0, balance=1.0, mention=True, embedding=True)
    texts = [mark(row["text"], *row["span"]) for row in train]
    model.fit(texts, ["mention"] * len(train), labels(train).tolist())
    asked = [mark(row["text"], *row["span"]) for row in test]
    scores = np.log(model.predict_proba(asked, ["mention"] * len(test)))
    if frozen:
        seen, vectors = centered(
            *(
                frozen.mentions([row["text"] for row in rows], [row["span"] for row in rows])
                for rows in (train, test)
            )
        )
        second = LogisticRegression(C=model.C, class_weight="balanced", max_iter=1000)
        scores += second.fit(seen, labels(train)).predict_log_proba(vectors)
    return np.asarray(model.classes_[scores.argmax(axis=1)])


def newsmtsc(folder: Path, validate: bool, frozen: Frozen | None) -> Iterator[Score]:
    """Both test parts, with one model."""
    train = read(folder, "train")
    if validate:
        sentence = [row["text"] for row in train]  # mentions of a sentence stay together
        splits = GroupKFold(FOLDS, shuffle=True, random_state=3).split(train, groups=sentence)
        found = out_of_fold(train, list(splits), partial(judge_mentions, frozen=frozen))
        yield Score("NewsMTSC", "macro F1", macro_f1(labels(train), found))
        return
    tests = {part: read(folder, part) for part in ("test_rw", "test_mt")}
    found = judge_mentions(train, [row for rows in tests.values() for row in rows], frozen)
    bars = {"test_rw": ((67, 72), "83.1 GRU-TSC (RoBERTa)"), "test_mt": ((64, 68), "82.5 GRU-TSC (RoBERTa)")}
    for part, rows in tests.items():
        yield Score(f"NewsMTSC {part}", "macro F1", macro_f1(labels(rows), found[: len(rows)]), *bars[part])
        found = found[len(rows) :]


# --- AG News: short news, one of four topics --------------------------------------------------------------


NAMES = [
    {"text": text, "label": label}
    for label, text in {
        "business": "business",
        "scitech": "science and technology",
        "sports": "sports",
        "world": "world",
    }.items()
]


def judge_news(
    train: Sequence[Row],
    test: Sequence[Row],
    unlabelled: Sequence[Row] = (),
    frozen: Frozen | None = None,
    **settings: Any,
) -> Labels:
    """Topic of the highest score for each row of `test`, by one model, or two where `frozen`."""
    texts, asked = ([row["text"] for row in rows] for rows in (train, test))
    model = TopicClassifier(**settings)
    model.fit(texts, [[row["label"]] for row in train], unlabelled=[row["text"] for row in unlabelled])
    scores = model.decision_function(asked)
    if frozen:
        seen, vectors = centered(frozen.texts(texts), frozen.texts(asked))
        of_kind = LinearSVC if model.loss == "squared_hinge" else partial(LogisticRegression, max_iter=1000)
        second = OneVsRestClassifier(of_kind(C=model.C))
        scores = scores + second.fit(seen, labels(train)).decision_function(vectors)
    return np.asarray(model.classes_[scores.argmax(axis=1)])


def ag_parts(folder: Path, validate: bool) -> tuple[list[Row], list[Row]]:
    """Train and test rows; for validation two parts of the train rows."""
    train = read(folder, "train_sample")
    if not validate:
        return train, read(folder, "test")
    kept, held_out = train_test_split(train, test_size=0.25, random_state=5, stratify=labels(train))
    return kept, held_out


def ag_news(folder: Path, validate: bool, frozen: Frozen | None) -> Iterator[Score]:
    """All labels of the sample."""
    train, test = ag_parts(folder, validate)
    found = judge_news(train, test, frozen=frozen, C=0.2, chars=True, loss="squared_hinge")
    accuracy = 100 * float(np.mean(found == labels(test)))
    yield Score("AG News, 14k train sample", "accuracy", accuracy, (89.5, 90), "95.5 XLNet (120k train rows)")


def ag_news_few(
    folder: Path, validate: bool, frozen: Frozen | None, *, more: bool = False, named: bool = False
) -> Iterator[Score]:
    """Train on 16 labels a class, ten draws.

    Where `more`, also on the rest of the sample without labels; where `named`, also on the names of the
    classes, each as two texts.
    """
    train, test = ag_parts(folder, validate)
    truth = labels(train)
    accuracies = []
    for draw in range(DRAWS):
        say(f"  draw {draw + 1} of {DRAWS}")
        chooser = np.random.default_rng(draw)
        classes = [np.flatnonzero(truth == name) for name in np.unique(truth)]
        drawn = np.concatenate([chooser.choice(rows, SHOTS, replace=False) for rows in classes])
        rest = np.setdiff1d(np.arange(len(train)), drawn).tolist() if more else []
        found = judge_news(
            [*(train[i] for i in drawn), *(NAMES * 2 if named else [])],
            test,
            [train[i] for i in rest],
            frozen,
            embedding=True,
            **({"C": 1.0} if more else {"C": 0.1, "min_df": 1}),
        )
        accuracies.append(100 * float(np.mean(found == labels(test))))
    name = f"AG News, {SHOTS} labels a class"
    name += (", other train texts unlabelled" if more else "") + (" and its name" if named else "")
    mean, deviation = float(np.mean(accuracies)), float(np.std(accuracies))
    yield Score(name, "accuracy", mean, (78, 79), "", deviation)


# --- all sets ---------------------------------------------------------------------------------------------

SETS: dict[str, tuple[str, Callable[[Path, bool, Frozen | None], Iterator[Score]]]] = {
    "semeval": ("semeval2016-t6", semeval),
    "newsmtsc": ("newsmtsc", newsmtsc),
    "ag-news": ("ag-news", ag_news),
    "ag-news-16": ("ag-news", ag_news_few),
    "ag-news-16-named": ("ag-news", partial(ag_news_few, named=True)),
    "ag-news-16-unlabelled": ("ag-news", partial(ag_news_few, more=True)),
}


def out_of_fold(
    rows: Sequence[Row],
    splits: Sequence[tuple[NDArray[Any], NDArray[Any]]],
    judge: Callable[[Sequence[Row], Sequence[Row]], Labels],
) -> Labels:
    """Label of each row by a model that has not seen it."""
    found = labels(rows)
    for number, (seen, held_out) in enumerate(splits, start=1):
        say(f"  fold {number} of {len(splits)}")
        found[held_out] = judge([rows[i] for i in seen], [rows[i] for i in held_out])
    return found


def run(name: str, data: Path, validate: bool, frozen: Frozen | None) -> list[Score]:
    """Score of a set with its time; nothing where it cannot run, with the reason."""
    folder, measure = SETS[name]
    if not (data / folder).is_dir():
        say(f"{name}: skipped, there is no folder {data / folder}")
        return []
    say(f"{name} ...")
    started = time.perf_counter()
    try:
        scores = list(measure(data / folder, validate, frozen))
    except ModelError as error:
        say(f"{name}: skipped, {error}")
        return []
    seconds = time.perf_counter() - started
    return [Score(**{**asdict(score), "seconds": round(seconds, 1)}) for score in scores]


def line(score: Score, accurate: bool) -> str:
    """One row of the table."""
    value = f"{score.value:.1f}" + ("" if score.deviation is None else f" ± {score.deviation:.1f}")
    least = score.bars[accurate] if score.bars else None
    bar = "" if least is None else f"{least:g} {'met' if score.value >= least else 'missed'}"
    return f"{score.set:58} {score.metric:44} {value:11} {bar:12} {score.published:29} {score.seconds:5.0f} s"


def main() -> None:
    """Measure the sets asked for and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the sets")
    parser.add_argument("--only", nargs="+", choices=SETS, default=list(SETS), help="these sets")
    parser.add_argument(
        "--validate", action="store_true", help="cross-validate on the train parts; reads no test part"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the scores there as well")
    parser.add_argument("--accurate", action="store_true", help="average with MiniLM (extra `accurate`)")
    parser.add_argument(
        "--vectors", type=Path, metavar="FILE", help="MiniLM's vectors are kept there between runs"
    )
    options = parser.parse_args()
    scores = []
    try:
        frozen = Frozen(options.vectors) if options.accurate else None
    except ModelError as error:
        parser.error(str(error))
    with threadpool_limits(limits=1):
        for name in options.only:
            scores += run(name, options.data, options.validate, frozen)
    print("cross-validated on train" if options.validate else "official test parts")
    for score in scores:
        print(line(score, options.accurate))
    if options.json:
        options.json.write_text(json.dumps([asdict(score) for score in scores], indent=2) + "\n")


if __name__ == "__main__":
    main()
