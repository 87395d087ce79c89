"""What topics that a user adds as data can do: detection, stance, speed.

``news``     the four classes of AG News as topics of a user: accuracy of the most probable one, F1 of each
``left-out`` one shipped topic at a time is taken away and given back as a user's topic: F1 on real
             development rows, and the share of rows of general news that it is wrongly found in
``articles`` the same on the seed articles (written, 165 words on average)
``stance``   stance toward a left-out topic by examples of it, on its real rows; the stance model is trained
             without it and does not know its name
``speed``    articles of 500 words of general news per second, on one core

Examples are drawn from real rows (``real``) or from written passages outside the background (``written``).

Example: ``OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.user_topics --data FOLDER --only left-out``
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import progress
from rich.console import Console
from sklearn.metrics import accuracy_score, f1_score
from threadpoolctl import threadpool_limits

from classifiers.assessor import Assessor
from classifiers.stance import StanceClassifier
from classifiers.storage import load_shipped
from classifiers.text import clean_feed, sentences
from classifiers.training import STANCES, Example, real_examples, shipped_examples
from classifiers.user_taxonomy import Labelled, UserTopic, load_user_taxonomy
from classifiers.user_topics import BACKGROUND_STEP, UserTopics
from stream.sources import read_paths

ROOT = Path(__file__).resolve().parent.parent
COUNTS = (0, 8, 16)
GENERAL_ROWS = 1500
HALF, HIGH = 0.5, 0.8
NEWS = {
    "world": "world news: international politics, governments, elections, wars, conflicts, diplomacy, attacks"
    " and disasters abroad",
    "sports": "sports: matches, teams, players, leagues, coaches, championships, football, baseball,"
    " basketball, olympics",
    "business": "business and finance: companies, earnings, stock markets, oil prices, economy, mergers,"
    " banks, jobs",
    "scitech": "science and technology: software, internet, computers, mobile phones, space exploration,"
    " research and discoveries",
}
LEFT_OUT = {
    "cloud": "cloud computing providers, services, revenue and data centres, AI model services on cloud:"
    " Amazon Web Services, Microsoft Azure, Google Cloud",
    "domestic_chips": "a country's or firm's own design or making of semiconductors: chip factories,"
    " foundries, subsidies, self-sufficiency, in-house processors",
    "export_controls": "government limits on selling or transferring chips and other advanced technology:"
    " export bans, sanctions, entity list, trade restrictions",
}
TERMS = {
    "cloud": "cloud,clouds,aws,azure,amazon web services,data cent*,datacent*,hyperscal*,saas,kubernetes",
    "domestic_chips": "chip*,semicond*,foundr*,tsmc,smic,silicon,wafer*,processor*,intel,fab,fabs,asml",
    "export_controls": "export*,curb*,restrict*,sanction*,blacklist*,entity list,ban,bans,banned,embargo*",
}
PASSAGES = shipped_examples()
console = Console(highlight=False, soft_wrap=True)


def track(items: Iterable[Any], what: str) -> Iterable[Any]:
    """The items, with a progress bar on a terminal."""
    return progress.track(items, what, console=console, transient=True, disable=not console.is_terminal)


class Data:
    """Everything that is measured on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.train, self.dev = real_examples(folder, "train"), real_examples(folder, "dev")
        self.general = self._rows("technews-2023/background")[:GENERAL_ROWS]
        self.shipped = load_shipped()

    def _rows(self, name: str) -> list[str]:
        return [clean_feed(row["text"]) for row in self.news(name)]

    def news(self, name: str) -> list[dict[str, str]]:
        """Rows of a file."""
        with gzip.open(self.folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]


def probabilities(fitted: UserTopics, texts: Sequence[str]) -> NDArray[np.float32]:
    """Probability of each topic for short texts, each as one window."""
    own = [sentences(text) for text in texts]
    ends = np.cumsum([len(parts) for parts in own]).tolist()
    windows = [range(end - len(parts), end) for parts, end in zip(own, ends, strict=True)]
    opened = np.array([fitted.opened(text) for text in texts])
    return fitted.predict_windows([part for parts in own for part in parts], windows, opened)


def sample(texts: Sequence[str], count: int, draw: int) -> tuple[Labelled, ...]:
    """Examples of one draw."""
    return tuple(map(Labelled, random.Random(draw).sample(list(texts), count)))  # noqa: S311 - repeatable


def spread(figures: Sequence[float]) -> str:
    """Mean and standard deviation over draws."""
    return f"{np.mean(figures):.3f}" + (f" +- {np.std(figures):.3f}" if len(figures) > 1 else "")


def measure_news(data: Data, draws: int) -> None:
    """AG News."""
    test = data.news("ag-news/test")
    pool = [row for row in data.news("ag-news/train_sample") if "-a-" in row["id"]]
    truth = np.array([row["label"] for row in test])
    names = np.array(list(NEWS))
    for count in COUNTS:
        accuracies, scores = [], []
        for draw in track(range(draws if count else 1), f"news, {count} examples"):
            drawn = {n: sample([r["text"] for r in pool if r["label"] == n], count, draw) for n in NEWS}
            topics = [
                UserTopic(
                    id=name,
                    description=description,
                    examples=drawn[name],
                    not_examples=tuple(e.text for n in NEWS if n != name for e in drawn[n]),
                )
                for name, description in NEWS.items()
            ]
            found = probabilities(
                UserTopics(topics, data.shipped.stance_model), [row["text"] for row in test]
            )
            accuracies.append(float(accuracy_score(truth, names[found.argmax(axis=1)])))
            scores.append([f1_score(truth == name, found[:, j] >= HALF) for j, name in enumerate(NEWS)])
        each = ", ".join(f"{n} {score:.2f}" for n, score in zip(NEWS, np.mean(scores, axis=0), strict=True))
        console.print(
            f"news       {count:2} examples a class: accuracy {spread(accuracies)}; F1 at 0.5: {each}"
        )


def left_out(topic: str, count: int, pool: Sequence[str], draw: int, *, terms: bool) -> UserTopic:
    """A shipped topic as a user's."""
    groups = (tuple(TERMS[topic].split(",")),) if terms else ()
    return UserTopic(id="mine", description=LEFT_OUT[topic], terms=groups, examples=sample(pool, count, draw))


def pools(data: Data, topic: str) -> dict[str, list[str]]:
    """Where examples are drawn from."""
    spare = [passage for i, passage in enumerate(PASSAGES) if i % BACKGROUND_STEP]
    return {
        "real": [row.text for row in data.train if topic in row.topics],
        "written": [row.text for row in spare if topic in row.topics],
    }


def background(topic: str) -> list[str]:
    """The usual background without the topic."""
    return [row.text for row in PASSAGES[::BACKGROUND_STEP] if topic not in row.topics]


def settings() -> Iterator[tuple[int, str, bool]]:
    """Number of examples, where from, with terms."""
    for count in COUNTS:
        for origin in ("real", "written") if count else ("-",):
            for terms in (False, True):
                yield count, origin, terms


def measure_left_out(data: Data, draws: int) -> None:
    """Development rows."""
    texts = [row.text for row in data.dev]
    for count, origin, terms in settings():
        scores: dict[str, list[float]] = {topic: [] for topic in LEFT_OUT}
        wrong = []
        for topic in track(LEFT_OUT, f"left-out, {count} examples"):
            truth = [topic in row.topics for row in data.dev]
            for draw in range(draws if count else 1):
                entry = left_out(topic, count, pools(data, topic).get(origin, []), draw, terms=terms)
                fitted = UserTopics([entry], data.shipped.stance_model, background(topic))
                scores[topic].append(
                    float(f1_score(truth, probabilities(fitted, texts)[:, 0] >= entry.threshold))
                )
                wrong.append(np.mean(probabilities(fitted, data.general)[:, 0] >= entry.threshold))
        each = ", ".join(f"{topic} {spread(found)}" for topic, found in scores.items())
        console.print(
            f"left-out   {count:2} {origin:7} examples, {'terms   ' if terms else 'no terms'}: mean F1"
            f" {np.mean([np.mean(found) for found in scores.values()]):.3f} ({each});"
            f" general news {np.mean(wrong):.2%}"
        )
    trained = data.shipped.topic_model.predict(texts)
    for name, found in {
        "the shipped, trained model": {t: [t in row for row in trained] for t in LEFT_OUT},
        "always": {t: [True] * len(texts) for t in LEFT_OUT},
    }.items():
        figures = [f1_score([t in row.topics for row in data.dev], found[t]) for t in LEFT_OUT]
        console.print(f"left-out   for comparison, {name}: mean F1 {np.mean(figures):.3f}")


def seed_articles() -> tuple[list[tuple[str, str]], list[set[str]]]:
    """Seed articles and their topics."""
    topics: dict[str, set[str]] = {}
    with (ROOT / "seeds" / "labels.csv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            topics.setdefault(row["id"], set()).add(row["topic"])
    found: dict[str, tuple[str, str]] = {}
    for record in read_paths([ROOT / "seeds"]):
        if record.event_id:
            event = json.loads(record.value)
            name = event["id"] if event["id"] in topics else Path(record.origin).name
            if name in topics:
                found[name] = (event.get("title", ""), event.get("text", ""))
    return list(found.values()), [topics[name] for name in found]


def beside(data: Data, topics: Sequence[UserTopic], texts: Sequence[str] | None = None) -> Assessor:
    """The shipped model with a user's topics on another background."""
    assessor = Assessor(
        data.shipped.topic_model, data.shipped.stance_model, name="x", content_hash="", user_topics=topics
    )
    assessor.user = UserTopics(topics, data.shipped.stance_model, texts)
    return assessor


def measure_articles(data: Data, draws: int) -> None:
    """Whole articles, of which the best window counts."""
    articles, truth = seed_articles()
    strangers = [UserTopic(id=name, description=NEWS[name]) for name in ("sports", "world")]
    found = beside(data, strangers).topic_probabilities(articles)[:, -2:]
    console.print(
        f"articles   {len(articles)}; found in them, by description only and wrongly, at 0.5 / 0.8: "
        + ", ".join(
            f"{t.id} {(p >= HALF).mean():.0%} / {(p >= HIGH).mean():.0%}"
            for t, p in zip(strangers, found.T, strict=True)
        )
    )
    for count, origin, terms in (
        (0, "-", False),
        (0, "-", True),
        (16, "real", False),
        (16, "written", False),
    ):
        scores = []
        for topic in track(LEFT_OUT, f"articles, {count} examples"):
            for draw in range(draws if count else 1):
                entry = left_out(topic, count, pools(data, topic).get(origin, []), draw, terms=terms)
                column = beside(data, [entry], background(topic)).topic_probabilities(articles)[:, -1]
                scores.append(f1_score([topic in row for row in truth], column >= entry.threshold))
        console.print(
            f"articles   {count:2} {origin:7} examples, {'terms' if terms else 'no terms'}:"
            f" mean F1 {np.mean(scores):.3f}"
        )


def measure_stance(data: Data, draws: int) -> None:
    """Stance by examples; the text is given to be of the topic."""
    scores: dict[int, list[float]] = {}
    doubt: dict[int, list[float]] = {}
    for topic, description in LEFT_OUT.items():
        rest = [row for row in [*PASSAGES, *data.train] if topic not in row.topics]
        pairs = [(row.text, t, row.stance[t]) for row in rest for t in row.topics]
        texts, names, labels = (list(column) for column in zip(*pairs, strict=True))
        shared = StanceClassifier().fit(texts, names, labels)
        rows = [row for row in [*data.train, *data.dev] if topic in row.topics]
        truth = [row.stance[topic] for row in rows]
        guess = shared.predict([row.text for row in rows], ["mine"] * len(rows))
        console.print(
            f"stance     {topic}: {len(rows)} real rows; always neutral"
            f" {macro(truth, ['neutral'] * len(rows)):.3f}; by words of other topics, without examples"
            f" {macro(truth, guess.tolist()):.3f}"
        )
        pool = [row for row in PASSAGES if topic in row.topics]
        for count in (5, 10, 20):
            found = []
            for draw in track(range(draws), f"stance, {count} examples"):
                entry = UserTopic(
                    id="mine", description=description, examples=stance_examples(pool, topic, count, draw)
                )
                fitted = UserTopics([entry], shared, background(topic))
                judged = fitted.predict_stance(0, [sentences(row.text) for row in rows])
                assert judged is not None  # noqa: S101 - there are examples
                found.append(macro(truth, shared.classes_[judged.argmax(axis=1)].tolist()))
                doubt.setdefault(count, []).append(float((judged.max(axis=1) < entry.unclear_below).mean()))
            scores.setdefault(count, []).extend(found)
            console.print(f"stance     {topic}: {count:2} written examples of each: {spread(found)}")
    for count, found in scores.items():
        console.print(
            f"stance     all: {count:2} examples of each: mean macro F1 {np.mean(found):.3f};"
            f" less probable than 0.4: {np.mean(doubt[count]):.0%}"
        )


def stance_examples(pool: Sequence[Example], topic: str, count: int, draw: int) -> tuple[Labelled, ...]:
    """As many of each stance."""
    return tuple(
        Labelled(example.text, stance)  # type: ignore[arg-type]
        for stance in STANCES
        for example in sample([row.text for row in pool if row.stance[topic] == stance], count, draw)
    )


def macro(truth: Sequence[str], guess: Sequence[str]) -> float:
    """Macro F1 over the three stances."""
    return float(f1_score(truth, guess, labels=list(STANCES), average="macro", zero_division=0))


def measure_speed(data: Data, _draws: int) -> None:
    """Articles per second with no topic of a user, with a gated one and with one that reads all."""
    chooser = random.Random(7)  # noqa: S311 - repeatable
    articles = [("", " ".join(chooser.sample(data.general, 10))) for _ in range(600)]
    words = np.mean([len(text.split()) for _, text in articles])
    (gated,) = load_user_taxonomy(ROOT / "classifiers" / "example_topics.yaml", ())
    free = UserTopic(id="free", description=gated.description)
    with threadpool_limits(limits=1):
        for name, topics in {"none": (), "one with terms": (gated,), "one without terms": (free,)}.items():
            started = time.process_time()
            assessor = Assessor(
                data.shipped.topic_model,
                data.shipped.stance_model,
                name="x",
                content_hash="",
                user_topics=topics,
            )
            loading = time.process_time() - started
            assessor.assess(articles[:20])  # warm
            started = time.perf_counter()
            for start in range(0, len(articles), 200):
                assessor.assess(articles[start : start + 200])
            rate = len(articles) / (time.perf_counter() - started)
            console.print(
                f"speed      user topics: {name:18} {rate:6.0f} articles/s of {words:.0f} words;"
                f" fitted in {loading:.2f} s"
            )


MEASURES: dict[str, Callable[[Data, int], None]] = {
    "news": measure_news,
    "left-out": measure_left_out,
    "articles": measure_articles,
    "stance": measure_stance,
    "speed": measure_speed,
}


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of technews-2023 and ag-news")
    parser.add_argument("--only", choices=MEASURES, action="append", help="one part; may be given again")
    parser.add_argument("--draws", type=int, default=10, help="draws of the examples (default 10)")
    options = parser.parse_args()
    data = Data(options.data)
    for name in options.only or MEASURES:
        MEASURES[name](data, options.draws)


if __name__ == "__main__":
    main()
