"""Which topics a text is about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import expit
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from sklearn.utils.validation import check_is_fitted

from classifiers.embedding import Embedding, directions
from classifiers.features import NgramFeatures, Tensors, WordFeatures, product, sum_groups
from classifiers.gate import Gate
from classifiers.hints import Hints
from classifiers.taxonomy import Topic, load_taxonomy
from classifiers.text import sentences

__all__ = ["TopicClassifier"]

HINT_WEIGHT = 0.3
LOSSES = ("log", "squared_hinge")
CHARS = {"ngram_range": (2, 5), "analyzer": "char_wb"}
SELF_TRAINING_SHARES = (0.2, 0.4, 0.6, 0.8)  # of the unlabelled texts, round by round
SELF_TRAINING_OWN = 0.2  # least weight of the labelled texts, as a share of the others'
THRESHOLDS = np.arange(0.2, 0.53, 0.02)
THRESHOLD_USUAL = 0.36


class TopicClassifier(BaseEstimator):
    """Multi-label topic classifier: TF-IDF of words and word pairs, and authored hints.

    One logistic regression a topic, so topics do not compete and none may apply. A text that holds none of
    the words that the taxonomy needs has probability 0; a topic without an entry there needs none and opens
    the gate to every text.

    Parameters
    ----------
    C : float, default=6.0
        Inverse strength of the L2 penalty.
    min_df : int, default=2
        Terms in fewer training texts are dropped.
    chars : bool, default=False
        Character n-grams as well; pays with some thousand training texts.
    embedding : bool, default=False
        The direction of the text's word vectors (:class:`Embedding`) as well; pays with few training texts,
        then with a `C` near 0.1.
    loss : {"log", "squared_hinge"}, default="log"
        Of the training: logistic regression, or a linear support vector machine, which may order better with
        some thousand training texts (with a `C` near 0.2). Its scores are no log-odds: its probabilities mean
        something only after :meth:`calibrate`.

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

    def __init__(
        self,
        C: float = 6.0,  # noqa: N803 - scikit-learn's name
        min_df: int = 2,
        *,
        chars: bool = False,
        embedding: bool = False,
        loss: str = "log",
    ) -> None:
        self.C = C
        self.min_df = min_df
        self.chars = chars
        self.embedding = embedding
        self.loss = loss

    def fit(
        self,
        X: Sequence[str],  # noqa: N803
        y: Iterable[Iterable[str]],
        sample_weight: NDArray[Any] | None = None,
        unlabelled: Sequence[str] = (),
    ) -> TopicClassifier:
        """Learn from texts and the topics of each.

        Parameters
        ----------
        X : sequence of str, length n_samples
        y : iterable of iterables of str
            Topic ids of each text; empty for off topic.
        sample_weight : ndarray of shape (n_samples,), optional
        unlabelled : sequence of str
            More texts, to learn from the model's own surest decisions on them (self-training). They must come
            from where `X` comes from: about the same share of each topic is assumed.

        Returns
        -------
        TopicClassifier
            Itself.

        Raises
        ------
        ValueError
            When `loss` is none of the two.
        """
        if self.loss not in LOSSES:
            message = f"loss: got {self.loss!r}, expected one of {', '.join(LOSSES)}"
            raise ValueError(message)
        labels = [set(row) for row in y]
        self.classes_ = np.array(sorted(set().union(*labels)), dtype=str)
        self.words_ = WordFeatures(self.min_df).fit([*X, *unlabelled])
        self.chars_ = NgramFeatures(self.min_df, CHARS).fit([*X, *unlabelled]) if self.chars else None
        self._set_taxonomy()
        features = self._features([sentences(text) for text in X])
        more = self._features([sentences(text) for text in unlabelled]) if len(unlabelled) else None
        fitted = [
            self._fit_one(features, np.array([topic in row for row in labels]), sample_weight, more)
            for topic in self.classes_
        ]
        self.coef_ = np.vstack([model.coef_ for model in fitted]).astype(np.float32)
        self.intercept_ = np.concatenate([model.intercept_ for model in fitted]).astype(np.float32)
        self._weights = np.ascontiguousarray(self.coef_.T)  # as products want them
        self.slopes_ = np.ones(len(self.classes_))
        self.shifts_ = np.zeros(len(self.classes_))
        self.thresholds_ = np.full(len(self.classes_), 0.5)
        return self

    def _fit_one(
        self,
        features: sparse.csr_matrix,
        truth: NDArray[np.bool_],
        sample_weight: NDArray[Any] | None,
        unlabelled: sparse.csr_matrix | None,
    ) -> Any:
        model = self._linear().fit(features, truth, sample_weight=sample_weight)
        if unlabelled is None:
            return model
        own = np.ones(len(truth)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
        positive = np.average(truth, weights=own)
        for share in SELF_TRAINING_SHARES:
            order = np.argsort(model.decision_function(unlabelled), kind="stable")
            highest = order[len(order) - round(len(order) * share * positive) :]
            lowest = order[: round(len(order) * share * (1 - positive))]
            added = len(highest) + len(lowest)
            weight = own * max(1.0, SELF_TRAINING_OWN * added / own.sum())
            model = self._linear().fit(
                sparse.vstack([features, unlabelled[highest], unlabelled[lowest]], format="csr"),
                np.concatenate([truth, np.ones(len(highest), dtype=bool), np.zeros(len(lowest), dtype=bool)]),
                sample_weight=np.concatenate([weight, np.ones(added)]),
            )
        return model

    def _linear(self) -> Any:
        if self.loss == "squared_hinge":
            return LinearSVC(C=self.C, random_state=0)
        return LogisticRegression(C=self.C, max_iter=1000)

    def calibrate(
        self, scores: NDArray[Any], y: Iterable[Iterable[str]], sample_weight: NDArray[Any] | None = None
    ) -> TopicClassifier:
        """Fit Platt scaling and the threshold of each topic on out-of-fold scores.

        Thresholds are those of the best F1, drawn toward 0.36: the curve is flat, and its optimum below 0.5.

        Parameters
        ----------
        scores : ndarray of shape (n_samples, n_topics)
            As :meth:`decision_function` gives them, of models that have not seen the rows.
        y : iterable of iterables of str
        sample_weight : ndarray of shape (n_samples,), optional
            As how many rows each counts, in Platt scaling and in F1.

        Returns
        -------
        TopicClassifier
            Itself.
        """
        labels = [set(row) for row in y]
        weight = np.ones(len(labels)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
        for j, topic in enumerate(self.classes_):
            truth = np.array([topic in row for row in labels])
            platt = LogisticRegression(C=10).fit(scores[:, [j]], truth, sample_weight=weight)
            self.slopes_[j], self.shifts_[j] = float(platt.coef_[0, 0]), float(platt.intercept_[0])
            p = expit(scores[:, j] * self.slopes_[j] + self.shifts_[j])
            f1 = [
                2 * weight[truth & (p >= t)].sum() / (weight[truth].sum() + weight[p >= t].sum())
                for t in THRESHOLDS
            ]
            self.thresholds_[j] = float(
                THRESHOLDS[int(np.argmax(f1 - 0.3 * abs(THRESHOLDS - THRESHOLD_USUAL)))]
            )
        return self

    def decision_function(self, X: Sequence[str]) -> NDArray[np.float32]:  # noqa: N803
        """Raw scores before calibration and gate, shape (n_samples, n_topics)."""
        check_is_fitted(self)
        blocks = self._blocks(*_whole([sentences(text) for text in X]))
        return np.asarray(product(blocks, self._weights) + self.intercept_, dtype=np.float32)

    def predict_proba(self, X: Sequence[str]) -> NDArray[np.float32]:  # noqa: N803
        """Probability of each topic.

        Returns
        -------
        ndarray of shape (n_samples, n_topics)
            Columns as in ``classes_``; topics are independent, rows do not sum to 1.
        """
        check_is_fitted(self)
        return self.predict_windows(*_whole([sentences(text) for text in X]))

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
        rows = [i for i, window in enumerate(windows) if self.gate_.opens(masks, window)]
        if rows:
            blocks = self._blocks(parts, [windows[i] for i in rows])
            scores = product(blocks, self._weights) + self.intercept_
            out[rows] = expit(scores * self.slopes_ + self.shifts_)
        return out

    def predict(self, X: Sequence[str]) -> list[list[str]]:  # noqa: N803
        """Topics whose probability reaches their threshold, for each text."""
        return [self.classes_[row >= self.thresholds_].tolist() for row in self.predict_proba(X)]

    def _set_taxonomy(self) -> None:
        known = {topic.id: topic for topic in load_taxonomy()}
        names = [str(name) for name in self.classes_]
        self.gate_ = Gate([known.get(name) or Topic(name, "", (), (), (), 0.0) for name in names])
        # They are about the shipped topics: of no use where none of them is known.
        self.hints_ = Hints.shipped() if known.keys() & set(names) else Hints({}, [])

    def _features(self, texts: Sequence[Sequence[str]]) -> sparse.csr_matrix:
        return sparse.csr_matrix(sparse.hstack(self._blocks(*_whole(texts))))

    def _blocks(self, parts: Sequence[str], windows: Sequence[Sequence[int]]) -> list[sparse.csr_matrix]:
        used = set(chain.from_iterable(windows))
        read = [part if index in used else "" for index, part in enumerate(parts)]
        summing = sum_groups(windows, len(parts))
        blocks = [self.words_.weigh(summing @ self.words_.counts(read))]
        if self.chars_ is not None:
            blocks.append(self.chars_.weigh(summing @ self.chars_.counts(read)))
        if self.embedding:
            blocks.append(sparse.csr_matrix(directions(summing @ Embedding.shared().sums(read))))
        hints = self.hints_.matrix(read)
        first = hints[[window[0] for window in windows]]
        for found in (summing @ hints, first):
            found.data[:] = HINT_WEIGHT  # there or not, in the window and in its first sentence
            blocks.append(found)
        return blocks

    def tensors(self) -> Tensors:
        """Stored form."""
        check_is_fitted(self)
        return {
            **self.words_.tensors("topic"),
            **(self.chars_.tensors("topic.chars") if self.chars_ is not None else {}),
            "topic.embedding": np.array([self.embedding]),
            "topic.coef": self.coef_,
            "topic.intercept": self.intercept_,
            "topic.calibration": np.stack([self.slopes_, self.shifts_, self.thresholds_]),
        }

    @classmethod
    def from_tensors(cls, tensors: Tensors, classes: Sequence[str]) -> TopicClassifier:
        """Inverse of :meth:`tensors`."""
        model = cls(chars="topic.chars.terms" in tensors, embedding=bool(tensors["topic.embedding"][0]))
        model.chars_ = NgramFeatures(1, CHARS).restore(tensors, "topic.chars") if model.chars else None
        model.classes_ = np.asarray(classes, dtype=str)
        model.words_ = WordFeatures().restore(tensors, "topic")
        model.coef_ = tensors["topic.coef"]
        model.intercept_ = tensors["topic.intercept"]
        model._weights = np.ascontiguousarray(model.coef_.T)
        model.slopes_, model.shifts_, model.thresholds_ = tensors["topic.calibration"]
        model._set_taxonomy()
        return model


def _whole(texts: Sequence[Sequence[str]]) -> tuple[list[str], list[range]]:
    """Sentences of all texts, and the window of each text that holds all of its own."""
    parts = [part for text in texts for part in text]
    ends = np.cumsum([len(text) for text in texts], dtype=int)
    return parts, [range(end - len(text), end) for text, end in zip(texts, ends.tolist(), strict=True)]
