"""Topics that a user adds as data: detected by their description, better with examples, stance by examples.

Everything is fitted when a taxonomy is loaded, in a fraction of a second a topic, from the entry itself and a
background: every second of the single passages that come with the package. The same entry gives the same
decisions.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import ahocorasick_rs
import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import expit, logit, softmax
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from classifiers.embedding import Embedding, Vectors, directions
from classifiers.features import WordFeatures, row_a_class, sum_groups
from classifiers.stance import StanceClassifier
from classifiers.text import sentences
from classifiers.training import shipped_examples
from classifiers.user_taxonomy import UserTopic

__all__ = ["EXAMPLES_MIN", "STANCE_EXAMPLES_MIN", "Ability", "UserTopics"]

METHOD = "user-topics-1"  # part of the hash: change it when the same entry decides otherwise
EXAMPLES_MIN = 8
STANCE_EXAMPLES_MIN = 5
BACKGROUND_STEP = 2
# Description alone: shares of the background that reach a probability of 0.5 and of 0.8.
TAIL_AT_HALF, TAIL_AT_HIGH, HIGH = 0.05, 0.01, 0.8
BACKGROUND_MIN = 200
# With examples; chosen on three topics left out in turn (benchmarks/user_topics.py).
WORD_WEIGHT = 2.0
SIMILARITY_WEIGHT = 3.0
DETECTION_C = 0.1
DESCRIPTION_COUNTS = 8  # as many texts, when the middle of the topic is sought
LIKELY_OWN = 0.25
PRIOR = 0.05
FOLDS = 4
SHARED_WEIGHT = 1.0
STANCE_C = 1.0

Windows = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Ability:
    """What a topic can do with what its entry holds.

    Attributes
    ----------
    detection : {"description", "examples"}
    examples : int
        Texts of the topic in the entry.
    stances : tuple of str
        Those that can be given; empty when stance is always ``unclear``.
    stance_counts : mapping of str to int
        Examples of each stance.
    """

    detection: Literal["description", "examples"]
    examples: int
    stances: tuple[str, ...]
    stance_counts: dict[str, int]


class TermGate:
    """Which terms a text holds: whole words in any case, or beginnings of words when they end with a star."""

    def __init__(self, groups: Sequence[Iterable[str]]) -> None:
        bits: dict[tuple[str, bool], int] = {}
        for number, group in enumerate(groups):
            for term in group:
                key = (term.rstrip("*").lower(), term.endswith("*"))
                bits[key] = bits.get(key, 0) | 1 << number
        self._terms = [(text, is_start, mask) for (text, is_start), mask in bits.items()]
        self._automaton = ahocorasick_rs.AhoCorasick([text for text, _, _ in self._terms])

    def mask(self, text: str) -> int:
        """Bit set of the groups of which the text holds a term."""
        lower = text.lower()
        found = 0
        for index, start, end in self._automaton.find_matches_as_indexes(lower, overlapping=True):
            _, is_start, mask = self._terms[index]
            whole = not _in_word(lower, start) and (is_start or not _in_word(lower, end))
            found |= mask if whole else 0
        return found


def _in_word(text: str, place: int) -> bool:
    """Whether a word goes on across this place."""
    around = text[max(0, place - 1) : place + 1]
    return 0 < place < len(text) and all(character.isalnum() or character == "_" for character in around)


class UserTopics:
    """The user's topics, fitted.

    1. Terms are a gate: one of each group is needed. Excluded terms close it for a window.
    2. Up to 7 examples: the similarity of window and description, as a probability by where it lies among
       the similarities of the background: one passage in 20 reaches 0.5, one in 100 reaches 0.8.
    3. From 8 examples on: a logistic regression on the window's embedding, its words and that similarity, of
       the examples against the background without what is likely to be of the topic itself; Platt scaling on
       out-of-fold scores, as if one text in 20 had the topic. Its log-odds and those of step 2 are averaged:
       texts of another style than the examples are still known by the description.
    4. Stance: with at least 5 examples each of two stances or more, a logistic regression on embedding, words
       and what the shipped stance model says by words that have the same polarity for all topics.

    Parameters
    ----------
    topics : sequence of UserTopic
    stance_model : StanceClassifier
        The shipped one.
    background : sequence of str, optional
        Texts of other things; default: every second of the shipped single passages.

    Attributes
    ----------
    ids : list of str
        Order of all columns.
    thresholds : ndarray of shape (n_topics,)
    abilities : list of Ability
    content_hash : str
        SHA-256 over everything that decides besides the shipped model.
    """

    def __init__(
        self,
        topics: Sequence[UserTopic],
        stance_model: StanceClassifier,
        background: Sequence[str] | None = None,
    ) -> None:
        self.topics = tuple(topics)
        self.ids = [topic.id for topic in topics]
        self.thresholds = np.array([topic.threshold for topic in topics])
        self.embedding = Embedding.shared()
        if background is None:
            single = [example.text for example in shipped_examples() if not example.batch]
            background = single[::BACKGROUND_STEP]
        self.content_hash = hashlib.sha256(
            msgspec.json.encode([METHOD, topics, self.embedding.sha256, background])
        ).hexdigest()
        self._terms = TermGate([group for topic in topics for group in topic.terms])
        ends = np.cumsum([len(topic.terms) for topic in topics]).tolist()
        self._needs = [(1 << end) - (1 << end - len(t.terms)) for end, t in zip(ends, topics, strict=True)]
        self._excluded = TermGate([topic.excluded for topic in topics])
        base = _Background(background, self.embedding)
        self._center = base.center
        gates = np.array([self.opened(text) for text in base.texts])
        self._detectors = [
            _Detector(topic, base, gates[:, i] if topic.terms else np.zeros(len(base.texts), dtype=bool))
            for i, topic in enumerate(topics)
        ]
        self._stances = [_Stance(topic, base, stance_model) for topic in topics]
        self.abilities = [
            Ability(
                "examples" if len(topic.examples) >= EXAMPLES_MIN else "description",
                len(topic.examples),
                stance.classes,
                stance.counts,
            )
            for topic, stance in zip(topics, self._stances, strict=True)
        ]

    def opened(self, text: str) -> NDArray[np.bool_]:
        """Which topics an article can have by its terms; shape (n_topics,)."""
        return self._met(self._terms.mask(text))

    def _met(self, mask: int) -> NDArray[np.bool_]:
        """Which topics have a term of each of their groups."""
        return np.array([mask & need == need for need in self._needs])

    def predict_windows(
        self, parts: Sequence[str], windows: Windows, opened: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Probability of each topic for windows of sentences.

        Parameters
        ----------
        parts : sequence of str
            Sentences; each is read once.
        windows : sequence of sequences of int
            Indices of the sentences of each window.
        opened : ndarray of bool, shape (n_windows, n_topics)
            :meth:`opened` of the article of each window.

        Returns
        -------
        ndarray of shape (n_windows, n_topics)
            0 where the gate is closed.
        """
        out = np.zeros((len(windows), len(self.ids)), dtype=np.float32)
        possible = opened & self._open_windows(parts, windows, opened)
        rows = np.flatnonzero(possible.any(axis=1))
        if not len(rows):
            return out
        texts = _Texts.read(parts, [windows[i] for i in rows.tolist()], self.embedding, self._center)
        for column, detector in enumerate(self._detectors):
            wanted = np.flatnonzero(possible[rows, column])
            if len(wanted):
                out[rows[wanted], column] = detector.probability(texts.only(wanted))
        return out

    def _open_windows(
        self, parts: Sequence[str], windows: Windows, opened: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        masks: dict[int, tuple[int, int]] = {}
        out = np.zeros(opened.shape, dtype=bool)
        for row in np.flatnonzero(opened.any(axis=1)).tolist():
            terms = excluded = 0
            for index in windows[row]:
                if index not in masks:
                    masks[index] = self._terms.mask(parts[index]), self._excluded.mask(parts[index])
                terms |= masks[index][0]
                excluded |= masks[index][1]
            out[row] = self._met(terms) & ~_flags(excluded, len(self.ids))
        return out

    def predict_stance(self, column: int, windows: Sequence[Sequence[str]]) -> NDArray[np.float32] | None:
        """Probability of each stance of the shipped model's ``classes_``; None when it is never given."""
        stance = self._stances[column]
        if not stance.classes:
            return None
        parts = [part for window in windows for part in window]
        ends = np.cumsum([len(window) for window in windows])
        groups = [range(end - len(window), end) for window, end in zip(windows, ends, strict=True)]
        return stance.probability(_Texts.read(parts, groups, self.embedding, self._center), windows)


def _flags(mask: int, size: int) -> NDArray[np.bool_]:
    return np.array([bool(mask >> bit & 1) for bit in range(size)])


@dataclass(frozen=True)
class _Texts:
    """Windows of sentences with their embeddings; words are counted when they are asked for."""

    parts: list[str]
    summing: sparse.csr_matrix
    vectors: Vectors

    @classmethod
    def read(cls, parts: Sequence[str], windows: Windows, embedding: Embedding, center: Vectors) -> _Texts:
        """Embed the windows; each sentence is read once."""
        used = sorted({index for window in windows for index in window})
        place = {index: i for i, index in enumerate(used)}
        kept = [parts[index] for index in used]
        summing = sum_groups([[place[index] for index in window] for window in windows], len(used))
        return cls(kept, summing, directions(np.asarray(summing @ embedding.sums(kept)), center))

    def only(self, rows: NDArray[np.intp]) -> _Texts:
        """Some of the windows."""
        return _Texts(self.parts, self.summing[rows], self.vectors[rows])

    def words(self, features: WordFeatures) -> sparse.csr_matrix:
        """TF-IDF rows of the windows."""
        used = np.flatnonzero(np.asarray(self.summing.sum(axis=0)).ravel())
        counts = features.counts([self.parts[i] for i in used])
        return features.weigh(self.summing[:, used] @ counts)


class _Background:
    """Texts of other things, and the middle of the embedding space as they show it."""

    def __init__(self, texts: Sequence[str], embedding: Embedding) -> None:
        self.texts = list(texts)
        self.embedding = embedding
        sums = embedding.sums(self.texts)
        self.center = directions(sums).mean(axis=0)
        self.vectors = directions(sums, self.center)

    def vectors_of(self, texts: Sequence[str]) -> Vectors:
        """Directions of texts as seen from that middle."""
        return directions(self.embedding.sums(texts), self.center)


class _Detector:
    """Log-odds of one topic, linear in the window's vector and words."""

    def __init__(self, topic: UserTopic, base: _Background, has_term: NDArray[np.bool_]) -> None:
        words = [term.rstrip("*") for group in topic.terms for term in group]
        about = " ".join([topic.label, topic.description, *words])
        (self.description,) = base.vectors_of([about])
        self.words: WordFeatures | None = None
        self.word_weights = np.zeros(0, dtype=np.float32)
        slope, self.intercept = self._scale_by_background(base, has_term)
        self.weights = self.description * slope
        if len(topic.examples) >= EXAMPLES_MIN:
            self._learn([example.text for example in topic.examples], topic.not_examples, about, base)

    def _scale_by_background(self, base: _Background, has_term: NDArray[np.bool_]) -> tuple[float, float]:
        """Slope and intercept of the similarity, by two points of the background's.

        Passages with a term of the topic may be of the topic, and are left out while enough remain.
        """
        others = ~has_term if (~has_term).sum() >= BACKGROUND_MIN else np.ones(len(base.texts), dtype=bool)
        similarity = base.vectors[others] @ self.description
        half, high = np.quantile(similarity, [1 - TAIL_AT_HALF, 1 - TAIL_AT_HIGH])
        slope = float(logit(HIGH) / max(high - half, 1e-3))
        return slope, float(-slope * half)

    def _learn(
        self, examples: Sequence[str], not_examples: Sequence[str], about: str, base: _Background
    ) -> None:
        """Fit on examples and background, and take the mean with what the description says."""
        own = base.vectors_of(examples)
        middle = own.sum(axis=0) + DESCRIPTION_COUNTS * self.description
        others = middle - own  # each example is compared with the rest
        likely = np.quantile((own * others).sum(axis=1) / np.linalg.norm(others, axis=1), LIKELY_OWN)
        kept = np.flatnonzero(base.vectors @ middle / np.linalg.norm(middle) < likely)
        kept = kept if len(kept) >= BACKGROUND_MIN else np.arange(len(base.texts))
        texts = [*examples, *not_examples, *(base.texts[i] for i in kept)]
        vectors = np.vstack([own, base.vectors_of(not_examples), base.vectors[kept]])
        truth = np.arange(len(texts)) < len(examples)

        self.words = WordFeatures(min_df=1).fit(texts)
        self.words.keep(WordFeatures(min_df=1).fit([*examples, *not_examples, about]))
        words = self.words.transform([sentences(text) for text in texts]) * WORD_WEIGHT
        similarity = (vectors @ self.description)[:, None] * SIMILARITY_WEIGHT
        fitted = CalibratedClassifierCV(
            LogisticRegression(C=DETECTION_C, max_iter=500, class_weight="balanced"),
            cv=StratifiedKFold(FOLDS, shuffle=True, random_state=7),
            ensemble=False,
        ).fit(np.hstack([vectors, similarity, words.toarray()]), truth)
        (calibrated,) = fitted.calibrated_classifiers_
        (platt,) = calibrated.calibrators  # probability is 1 / (1 + exp(a score + b))
        size = len(self.description)
        slope = max(-platt.a_, 0.0)  # examples without anything in common must not turn it around
        coefficients = calibrated.estimator.coef_[0].astype(np.float32) * slope
        intercept = calibrated.estimator.intercept_[0] * slope - platt.b_
        # The share of examples among these texts says nothing about the stream.
        intercept += logit(PRIOR) - logit(truth.mean())
        learned = coefficients[:size] + coefficients[size] * SIMILARITY_WEIGHT * self.description
        self.weights = ((self.weights + learned) / 2).astype(np.float32)
        self.word_weights = (coefficients[size + 1 :] * WORD_WEIGHT / 2).astype(np.float32)
        self.intercept = float(self.intercept + intercept) / 2

    def probability(self, texts: _Texts) -> NDArray[np.float32]:
        """Probability of each window."""
        # A sum a row and no matrix product: its last bits do not depend on the other rows.
        scores = (texts.vectors * self.weights).sum(axis=1) + self.intercept
        if self.words is not None:
            scores = scores + texts.words(self.words) @ self.word_weights
        return np.asarray(expit(scores), dtype=np.float32)


class _Stance:
    """Probability of each stance toward one topic."""

    def __init__(self, topic: UserTopic, base: _Background, shared: StanceClassifier) -> None:
        judged = [example for example in topic.examples if example.stance]
        found = Counter(str(example.stance) for example in judged)
        self.counts = {stance: found[stance] for stance in ("favor", "against", "neutral") if found[stance]}
        self.shared = shared
        self.id = topic.id
        known = map(str, shared.classes_)
        given = tuple(stance for stance in known if found[stance] >= STANCE_EXAMPLES_MIN)
        self.classes: tuple[str, ...] = given if len(given) > 1 else ()
        if not self.classes:
            return
        used = [example for example in judged if example.stance in self.classes]
        texts = [example.text for example in used]
        own = [sentences(text) for text in texts]
        self.words = WordFeatures(min_df=1).fit(texts)
        features = self._features(base.vectors_of(texts), self.words.transform(own), own)
        model = LogisticRegression(C=STANCE_C, max_iter=500, class_weight="balanced").fit(
            features, [str(example.stance) for example in used]
        )
        coef, intercept = row_a_class(model)
        self.coef, self.intercept = coef.astype(np.float32), intercept.astype(np.float32)

    def _features(
        self, vectors: Vectors, words: sparse.csr_matrix, windows: Sequence[Sequence[str]]
    ) -> NDArray[np.float32]:
        shared = self.shared.predict_windows(windows, [self.id] * len(windows))
        return np.hstack([vectors, words.toarray(), np.log(shared + 1e-3) * SHARED_WEIGHT])

    def probability(self, texts: _Texts, windows: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        features = self._features(texts.vectors, texts.words(self.words), windows)
        scores = np.stack([(features * row).sum(axis=1) for row in self.coef], axis=1) + self.intercept
        out = np.zeros((len(windows), len(self.shared.classes_)), dtype=np.float32)
        out[:, [self.shared.classes_.tolist().index(name) for name in self.classes]] = softmax(scores, axis=1)
        return out
