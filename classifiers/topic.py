"""Which topics a text is about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import MultiLabelBinarizer
from sklearn.utils.validation import check_is_fitted

from classifiers.features import Tensors, make_vectorizer, restore_vectorizer, vectorizer_tensors

__all__ = ["TopicClassifier"]


class TopicClassifier(BaseEstimator):
    """Multi-label topic classifier over TF-IDF of words and word pairs.

    One balanced logistic regression a topic, so topics do not compete and none may apply.

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
    coef_ : ndarray of shape (n_topics, n_terms)
    intercept_ : ndarray of shape (n_topics,)

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

    def fit(self, X: Sequence[str], y: Iterable[Iterable[str]]) -> TopicClassifier:  # noqa: N803
        """Learn from texts and the topics of each.

        Parameters
        ----------
        X : sequence of str, length n_samples
        y : iterable of iterables of str
            Topic ids of each text; empty for off topic.

        Returns
        -------
        TopicClassifier
            Itself.

        Raises
        ------
        ValueError
            When a topic has no positive or no negative example.
        """
        binarizer = MultiLabelBinarizer()
        targets = binarizer.fit_transform(y)
        self.classes_ = binarizer.classes_.astype(str)
        self.vectorizer_ = make_vectorizer(min_df=self.min_df)
        features = self.vectorizer_.fit_transform(X)
        base = LogisticRegression(C=self.C, class_weight="balanced", max_iter=2000)
        fitted = [clone(base).fit(features, column) for column in targets.T]
        self.coef_ = np.vstack([model.coef_ for model in fitted]).astype(np.float32)
        self.intercept_ = np.concatenate([model.intercept_ for model in fitted]).astype(np.float32)
        return self

    def predict_proba(self, X: Sequence[str]) -> NDArray[np.float32]:  # noqa: N803
        """Probability of each topic.

        Returns
        -------
        ndarray of shape (n_samples, n_topics)
            Columns as in ``classes_``; topics are independent, rows do not sum to 1.
        """
        check_is_fitted(self)
        if not len(X):
            return np.zeros((0, len(self.classes_)), dtype=np.float32)
        scores = self.vectorizer_.transform(X) @ self.coef_.T + self.intercept_
        return np.asarray(expit(scores), dtype=np.float32)

    def predict(self, X: Sequence[str]) -> list[list[str]]:  # noqa: N803
        """Topics with a probability of at least one half, for each text."""
        return [self.classes_[row >= 0.5].tolist() for row in self.predict_proba(X)]  # noqa: PLR2004

    def tensors(self) -> Tensors:
        """Stored form."""
        check_is_fitted(self)
        return {
            **vectorizer_tensors(self.vectorizer_, "topic"),
            "topic.coef": self.coef_,
            "topic.intercept": self.intercept_,
        }

    @classmethod
    def from_tensors(cls, tensors: Tensors, classes: Sequence[str]) -> TopicClassifier:
        """Inverse of :meth:`tensors`."""
        model = cls()
        model.classes_ = np.asarray(classes, dtype=str)
        model.vectorizer_ = restore_vectorizer(tensors, "topic")
        model.coef_ = tensors["topic.coef"]
        model.intercept_ = tensors["topic.intercept"]
        return model
