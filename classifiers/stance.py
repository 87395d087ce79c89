"""Which attitude a text shows toward a topic's object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import softmax
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted

from classifiers.features import Tensors, make_vectorizer, restore_vectorizer, vectorizer_tensors

__all__ = ["StanceClassifier"]


class StanceClassifier(BaseEstimator):
    r"""Target-aware stance classifier over TF-IDF of words and word pairs.

    One multinomial logistic regression for all topics on augmented features
    :math:`[x, x \cdot 1_{t=1}, \ldots, x \cdot 1_{t=T}]`, so that words with the same polarity everywhere
    are learned once and those that differ by topic are learned for the topic
    (H. Daumé III, "Frustratingly Easy Domain Adaptation", ACL 2007).

    Parameters
    ----------
    C : float, default=10.0
        Inverse strength of the L2 penalty.
    min_df : int, default=2
        Terms in fewer training texts are dropped.

    Attributes
    ----------
    classes_ : ndarray of str, shape (n_stances,)
        Stances in alphabetical order; the order of all columns.
    topics_ : ndarray of str, shape (n_topics,)
        Topics seen in training.

    Examples
    --------
    >>> texts = ["record growth", "an outage", "a report"] * 3
    >>> model = StanceClassifier().fit(texts, ["cloud"] * 9, ["favor", "against", "neutral"] * 3)
    >>> model.predict(["growth", "outage"], ["cloud", "cloud"]).tolist()
    ['favor', 'against']
    """

    def __init__(self, C: float = 10.0, min_df: int = 2) -> None:  # noqa: N803 - scikit-learn's name
        self.C = C
        self.min_df = min_df

    def fit(self, X: Sequence[str], topics: Sequence[str], y: Sequence[str]) -> StanceClassifier:  # noqa: N803
        """Learn from texts, the topic that each is judged for, and the stance.

        Parameters
        ----------
        X : sequence of str, length n_samples
        topics : sequence of str, length n_samples
        y : sequence of str, length n_samples
            Stances.

        Returns
        -------
        StanceClassifier
            Itself.
        """
        self.topics_ = np.unique(np.asarray(topics, dtype=str))
        self.vectorizer_ = make_vectorizer(min_df=self.min_df)
        features = self._augment(self.vectorizer_.fit_transform(X), topics)
        model = LogisticRegression(C=self.C, class_weight="balanced", max_iter=3000).fit(features, list(y))
        self.classes_ = model.classes_.astype(str)
        self.coef_ = model.coef_.astype(np.float32)
        self.intercept_ = model.intercept_.astype(np.float32)
        return self

    def predict_proba(self, X: Sequence[str], topics: Sequence[str]) -> NDArray[np.float32]:  # noqa: N803
        """Probability of each stance.

        Parameters
        ----------
        X, topics : sequences of str, length n_samples
            A topic that was not in the training data is judged by the shared features alone.

        Returns
        -------
        ndarray of shape (n_samples, n_stances)
            Columns as in ``classes_``; rows sum to 1.
        """
        check_is_fitted(self)
        if not len(X):
            return np.zeros((0, len(self.classes_)), dtype=np.float32)
        features = self._augment(self.vectorizer_.transform(X), topics)
        return np.asarray(softmax(features @ self.coef_.T + self.intercept_, axis=1), dtype=np.float32)

    def predict(self, X: Sequence[str], topics: Sequence[str]) -> NDArray[np.str_]:  # noqa: N803
        """Most probable stance of each text toward its topic."""
        probabilities = self.predict_proba(X, topics)
        return np.asarray(self.classes_[probabilities.argmax(axis=1)])

    def _augment(self, features: Any, topics: Sequence[str]) -> Any:
        masks = [np.asarray(topics, dtype=str) == topic for topic in self.topics_]
        blocks = [sparse.diags(mask.astype(np.float32)) @ features for mask in masks]
        return sparse.hstack([features, *blocks], format="csr")

    def tensors(self) -> Tensors:
        """Stored form."""
        check_is_fitted(self)
        return {
            **vectorizer_tensors(self.vectorizer_, "stance"),
            "stance.coef": self.coef_,
            "stance.intercept": self.intercept_,
        }

    @classmethod
    def from_tensors(
        cls, tensors: Tensors, classes: Sequence[str], topics: Sequence[str]
    ) -> StanceClassifier:
        """Inverse of :meth:`tensors`."""
        model = cls()
        model.classes_ = np.asarray(classes, dtype=str)
        model.topics_ = np.asarray(topics, dtype=str)
        model.vectorizer_ = restore_vectorizer(tensors, "stance")
        model.coef_ = tensors["stance.coef"]
        model.intercept_ = tensors["stance.intercept"]
        return model
