"""Simpler methods on the same rows, so that it is plain what the model adds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from classifiers.frames import shipped_frames
from classifiers.lexicon import Lexicon
from classifiers.taxonomy import load_taxonomy
from classifiers.text import sentences
from classifiers.training import Example

__all__ = ["System", "linear_svm", "most_frequent", "rules"]

RULE = 2


@dataclass(frozen=True, slots=True)
class System:
    """What a method says about each text.

    Attributes
    ----------
    name : str
    found : sequence of mappings
        Of each text: the topics that the method found by itself, with their stance.
    given : sequence of mappings
        Of each text: the stance toward its true topics, told to the method.
    """

    name: str
    found: Sequence[Mapping[str, str]]
    given: Sequence[Mapping[str, str]]


def rules(examples: Sequence[Example], names: Collection[str]) -> System:
    """The taxonomy's strong terms for the named topics, authored polarities for stance; not trained."""
    lexicon, frames = Lexicon.shipped(), shipped_frames()
    patterns = [(topic.id, topic.strong_pattern) for topic in load_taxonomy() if topic.id in names]

    def stance(example: Example, topic: str) -> str:
        """By the sum of the polarities of lexicon and frames: 2 and more favor, -2 and less against."""
        text = sentences(example.text)
        total = lexicon.net(text) + (frames[topic].net(text) if topic in frames else 0)
        return "favor" if total >= RULE else "against" if total <= -RULE else "neutral"

    return System(
        "rules: strong terms, lexicon and frames",
        [
            {topic: stance(e, topic) for topic, pattern in patterns if pattern.search(e.text)}
            for e in examples
        ],
        [{topic: stance(e, topic) for topic in e.topics} for e in examples],
    )


def most_frequent(examples: Sequence[Example]) -> System:
    """The most frequent topic of these rows for every text, with the most frequent stance; off topic without.

    Chosen on the rows that it is judged on, which flatters it.
    """
    topics = Counter(topic for e in examples for topic in e.topics)
    stances = Counter(stance for e in examples for stance in e.stance.values())
    if not topics:
        return System("most frequent", [{} for _ in examples], [{} for _ in examples])
    topic, stance = _first(topics), _first(stances)
    return System(
        "most frequent",
        [{topic: stance} for _ in examples],
        [dict.fromkeys(e.topics, stance) for e in examples],
    )


def _first(counts: Counter[str]) -> str:
    """Most frequent key; of several the first by alphabet."""
    return min(counts, key=lambda key: (-counts[key], key))


def linear_svm(training: Sequence[Example], examples: Sequence[Example]) -> System:
    """TF-IDF of words and word pairs, and linear support vector machines; default settings, no weights.

    One machine a topic for topics. For stance one a topic, trained on the texts of the topic, as the baseline
    of S. Mohammad et al., "SemEval-2016 Task 6: Detecting Stance in Tweets", has one a target.
    """
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    seen = words.fit_transform([e.text for e in training])
    asked = words.transform([e.text for e in examples])
    found: list[dict[str, str]] = [{} for _ in examples]
    given: list[dict[str, str]] = [{} for _ in examples]
    for topic in sorted({topic for e in training for topic in e.topics}):
        about = np.array([topic in e.topics for e in training])
        has = _fit_predict(seen, about, asked)
        stances = np.array([e.stance[topic] for e in training if topic in e.topics])
        stance = _fit_predict(seen[about], stances, asked)
        for i, example in enumerate(examples):
            if has[i]:
                found[i][topic] = str(stance[i])
            if topic in example.topics:
                given[i][topic] = str(stance[i])
    return System("TF-IDF + linear SVM", found, given)


def _fit_predict(seen: Any, truth: Any, asked: Any) -> Any:
    """Class of each row; the only one where there is but one."""
    if len(np.unique(truth)) == 1:
        return np.repeat(truth[:1], asked.shape[0])
    return LinearSVC(random_state=0).fit(seen, truth).predict(asked)
