"""Which topics a text is about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import expit
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted

from classifiers.features import Tensors, WordFeatures, sum_groups
from classifiers.gate import Gate
from classifiers.taxonomy import Topic, load_taxonomy
from classifiers.text import sentences

__all__ = ["TopicClassifier"]

STRONG_WEIGHT = 0.7
NEVER = r"(?!)"  # matches nothing
THRESHOLDS = np.arange(0.2, 0.53, 0.02)
THRESHOLD_USUAL = 0.36


class TopicClassifier(BaseEstimator):
    """Multi-label topic classifier: TF-IDF of words and word pairs, and the taxonomy's strong terms.

    One logistic regression a topic, so topics do not compete and none may apply. Where the taxonomy's gate is
    closed the probability is 0; a topic without an entry in the taxonomy has no gate and no strong terms.

    Parameters
    ----------
    C : float, default=10.0
        Inverse strength of the L2 penalty.
    min_df : int, default=2
        Terms in fewer training texts are dropped.

    Attributes
    ----------
    classes_ : ndarray of str, shape (n_topics,)
        Topic ids in alphabetical order; the order of all columns.
    coef_ : ndarray of shape (n_topics, n_features)
    intercept_ : ndarray of shape (n_topics,)
    thresholds_ : ndarray of shape (n_topics,)
        Least probability, 0 to 1, at which a topic is assigned.

    Examples
    --------
    >>> texts = ["cloud revenue grew", "cloud outage hit users", "chips with salt", "fish and chips"] * 2
    >>> model = TopicClassifier().fit(texts, [["cloud"], ["cloud"], [], []] * 2)
    >>> model.predict(["a cloud outage", "salt and chips"])
    [['cloud'], []]
    """

    def __init__(self, C: float = 10.0, min_df: int = 2) -> None:  # noqa: N803 - scikit-learn's name
        self.C = C
        self.min_df = min_df

    def fit(
        self,
        X: Sequence[str],  # noqa: N803
        y: Iterable[Iterable[str]],
        sample_weight: NDArray[Any] | None = None,
    ) -> TopicClassifier:
        """Learn from texts and the topics of each.

        Parameters
        ----------
        X : sequence of str, length n_samples
        y : iterable of iterables of str
            Topic ids of each text; empty for off topic.
        sample_weight : ndarray of shape (n_samples,), optional

        Returns
        -------
        TopicClassifier
            Itself.
        """
        labels = [set(row) for row in y]
        self.classes_ = np.array(sorted(set().union(*labels)), dtype=str)
        self.words_ = WordFeatures(self.min_df).fit(X)
        self._set_taxonomy()
        features = self._features([sentences(text) for text in X])
        fitted = [
            LogisticRegression(C=self.C, max_iter=1000).fit(
                features, [topic in row for row in labels], sample_weight=sample_weight
            )
            for topic in self.classes_
        ]
        self.coef_ = np.vstack([model.coef_ for model in fitted]).astype(np.float32)
        self.intercept_ = np.concatenate([model.intercept_ for model in fitted]).astype(np.float32)
        self.slopes_ = np.ones(len(self.classes_))
        self.shifts_ = np.zeros(len(self.classes_))
        self.thresholds_ = np.full(len(self.classes_), 0.5)
        return self

    def calibrate(self, scores: NDArray[Any], y: Iterable[Iterable[str]]) -> TopicClassifier:
        """Fit Platt scaling and the threshold of each topic on out-of-fold scores.

        Thresholds are those of the best F1, drawn toward 0.36: the curve is flat, and its optimum below 0.5.

        Parameters
        ----------
        scores : ndarray of shape (n_samples, n_topics)
            As :meth:`decision_function` gives them, of models that have not seen the rows.
        y : iterable of iterables of str
        """
        labels = [set(row) for row in y]
        for j, topic in enumerate(self.classes_):
            truth = np.array([topic in row for row in labels])
            platt = LogisticRegression(C=10).fit(scores[:, [j]], truth)
            self.slopes_[j], self.shifts_[j] = float(platt.coef_[0, 0]), float(platt.intercept_[0])
            p = expit(scores[:, j] * self.slopes_[j] + self.shifts_[j])
            f1 = [2 * (truth & (p >= t)).sum() / (truth.sum() + (p >= t).sum()) for t in THRESHOLDS]
            self.thresholds_[j] = float(
                THRESHOLDS[int(np.argmax(f1 - 0.3 * abs(THRESHOLDS - THRESHOLD_USUAL)))]
            )
        return self

    def decision_function(self, X: Sequence[str]) -> NDArray[np.float32]:  # noqa: N803
        """Raw scores before calibration and gate, shape (n_samples, n_topics)."""
        check_is_fitted(self)
        features = self._features([sentences(text) for text in X])
        return np.asarray(features @ self.coef_.T + self.intercept_, dtype=np.float32)

    def predict_proba(self, X: Sequence[str]) -> NDArray[np.float32]:  # noqa: N803
        """Probability of each topic.

        Returns
        -------
        ndarray of shape (n_samples, n_topics)
            Columns as in ``classes_``; topics are independent, rows do not sum to 1.
        """
        check_is_fitted(self)
        own = [sentences(text) for text in X]
        parts = [part for group in own for part in group]
        ends = np.cumsum([len(group) for group in own])
        groups = [range(end - len(group), end) for group, end in zip(own, ends, strict=True)]
        return self.predict_windows(parts, groups)

    def predict_windows(self, parts: Sequence[str], windows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Probability of each topic for windows of sentences; every sentence is read once.

        Parameters
        ----------
        parts : sequence of str
            Sentences.
        windows : sequence of sequences of int
            Indices of the sentences of each window, in order.

        Returns
        -------
        ndarray of shape (n_windows, n_topics)
        """
        check_is_fitted(self)
        out = np.zeros((len(windows), len(self.classes_)), dtype=np.float32)
        masks = [self.gate_.mask(part) for part in parts]
        opened = np.zeros((len(windows), len(self.classes_)), dtype=bool)
        for row, window in zip(opened, windows, strict=True):
            mask = 0
            for index in window:
                mask |= masks[index]
            row[:] = self.gate_.opened(mask)
        rows = np.flatnonzero(opened.any(axis=1)).tolist()
        if rows:
            features = self._window_features(parts, [windows[i] for i in rows])
            scores = features @ self.coef_.T + self.intercept_
            out[rows] = expit(scores * self.slopes_ + self.shifts_) * opened[rows]
        return out

    def predict(self, X: Sequence[str]) -> list[list[str]]:  # noqa: N803
        """Topics whose probability reaches their threshold, for each text."""
        return [self.classes_[row >= self.thresholds_].tolist() for row in self.predict_proba(X)]

    def _set_taxonomy(self) -> None:
        known = {topic.id: topic for topic in load_taxonomy()}
        topics = [
            known.get(name) or Topic(name, "", needs=(), strong=(NEVER,), target=(NEVER,), unclear_below=0.0)
            for name in map(str, self.classes_)
        ]
        self.gate_ = Gate(topics)
        self._strong = [topic.strong_pattern for topic in topics]

    def _features(self, own: Sequence[Sequence[str]]) -> sparse.csr_matrix:
        parts = [part for group in own for part in group]
        ends = np.cumsum([len(group) for group in own], dtype=int)
        windows = [range(end - len(group), end) for group, end in zip(own, ends, strict=True)]
        return self._window_features(parts, windows)

    def _window_features(self, parts: Sequence[str], windows: Sequence[Sequence[int]]) -> sparse.csr_matrix:
        used = sorted({index for window in windows for index in window})
        place = {index: i for i, index in enumerate(used)}
        summing = sum_groups([[place[index] for index in window] for window in windows], len(used))
        words = self.words_.weigh(summing @ self.words_.counts([parts[index] for index in used]))
        hits = np.zeros((len(used), len(self._strong)), dtype=np.float32)
        for row, index in zip(hits, used, strict=True):
            touched = self.gate_.touched(self.gate_.mask(parts[index]))
            for column in touched:  # strong terms count in sentences that hold a needed term
                row[column] = len(self._strong[column].findall(parts[index]))
        sums = np.asarray(summing @ hits)
        first = hits[[place[window[0]] for window in windows]] if len(windows) else sums
        strong = np.hstack([sums > 0, np.log1p(sums), first > 0]).astype(np.float32) * STRONG_WEIGHT
        return sparse.csr_matrix(sparse.hstack([words, sparse.csr_matrix(strong)]))

    def tensors(self) -> Tensors:
        """Stored form."""
        check_is_fitted(self)
        return {
            **self.words_.tensors("topic"),
            "topic.coef": self.coef_,
            "topic.intercept": self.intercept_,
            "topic.calibration": np.stack([self.slopes_, self.shifts_, self.thresholds_]),
        }

    @classmethod
    def from_tensors(cls, tensors: Tensors, classes: Sequence[str]) -> TopicClassifier:
        """Inverse of :meth:`tensors`."""
        model = cls()
        model.classes_ = np.asarray(classes, dtype=str)
        model.words_ = WordFeatures.from_tensors(tensors, "topic")
        model.coef_ = tensors["topic.coef"]
        model.intercept_ = tensors["topic.intercept"]
        model.slopes_, model.shifts_, model.thresholds_ = tensors["topic.calibration"]
        model._set_taxonomy()
        return model
