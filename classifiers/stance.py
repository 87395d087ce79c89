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

from classifiers.calibration import temperature_scaling, vector_scaling
from classifiers.decisions import UNCLEAR_BELOW, Expected
from classifiers.extras import StanceExtras
from classifiers.features import Pairs, Tensors, WordFeatures, product, row_a_class
from classifiers.frames import FrameFeatures
from classifiers.lexicon import Lexicon, LexiconFeatures
from classifiers.mention import MASK
from classifiers.taxonomy import Topic, load_taxonomy
from classifiers.text import sentences

__all__ = ["StanceClassifier"]

DENSE_WEIGHT = 0.5
ENTRY_WEIGHT = 0.25
FRAME_WEIGHT = 0.35
UNREAD_MIN = 100


class StanceClassifier(BaseEstimator):
    r"""Target-aware stance classifier: TF-IDF of words and word pairs, an authored lexicon, authored frames.

    One multinomial logistic regression for all topics on augmented features
    :math:`[s x, x \cdot 1_{t=1}, \ldots, x \cdot 1_{t=T}]`, so that words with the same polarity everywhere
    are learned once and those that differ by topic are learned for the topic
    (H. Daumé III, "Frustratingly Easy Domain Adaptation", ACL 2007).

    Parameters
    ----------
    C : float, default=3.0
        Inverse strength of the L2 penalty.
    min_df : int, default=2
        Terms in fewer training texts are dropped.
    balance : float, default=0.5
        0 keeps the class shares of the training data, 1 makes classes equal.
    sharing : float, default=1.0
        :math:`s` above: how much topics learn from each other. Less pays where they have little in common and
        examples of their own; with 0 they share the entries of lexicon and frames alone.
    chars : bool, default=False
        Character n-grams as well: for tweets and other text of unusual spelling.
    mention : bool, default=False
        Texts mark what is judged as ``[[name]]`` (:func:`classifiers.mention.mark`): the words around it
        count by side, and its own words apart from the text's.
    embedding : bool, default=False
        Word vectors (:class:`Embedding`) as well: the direction of the text's and, around mentions, n-grams
        of words grouped by them.

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
    >>> model.predict(["record growth", "an outage"], ["cloud", "cloud"]).tolist()
    ['favor', 'against']
    """

    def __init__(
        self,
        C: float = 3.0,  # noqa: N803
        min_df: int = 2,
        balance: float = 0.5,
        *,
        chars: bool = False,
        mention: bool = False,
        embedding: bool = False,
        sharing: float = 1.0,
    ) -> None:
        self.C = C
        self.min_df = min_df
        self.balance = balance
        self.chars = chars
        self.mention = mention
        self.embedding = embedding
        self.sharing = sharing

    def fit(
        self,
        X: Sequence[str],  # noqa: N803 - scikit-learn's name
        topics: Sequence[str],
        y: Sequence[str],
        sample_weight: NDArray[Any] | None = None,
    ) -> StanceClassifier:
        """Learn from texts, the topic that each is judged for, and the stance.

        Parameters
        ----------
        X : sequence of str, length n_samples
        topics : sequence of str, length n_samples
        y : sequence of str, length n_samples
            Stances.
        sample_weight : ndarray of shape (n_samples,), optional

        Returns
        -------
        StanceClassifier
            Itself.
        """
        labels = np.asarray(y, dtype=str)
        self.topics_ = np.unique(np.asarray(topics, dtype=str))
        self.classes_ = np.unique(labels)
        weight = np.ones(len(labels)) if sample_weight is None else np.array(sample_weight, dtype=float)
        for stance in self.classes_:
            share = weight[labels == stance].sum() / weight.sum()
            weight[labels == stance] *= (1 / len(self.classes_) / share) ** self.balance
        texts = [sentences(text) for text in X]
        self.extras_ = StanceExtras(
            self.min_df, chars=self.chars, mention=self.mention, embedding=self.embedding
        ).fit(texts)
        self.words_ = WordFeatures(self.min_df).fit_parts(self.extras_.masked(texts))
        self._set_knowledge()
        model = LogisticRegression(C=self.C, max_iter=600).fit(
            self._features(texts, topics), labels, sample_weight=weight
        )
        count = len(self.topics_)
        shared = (model.coef_.shape[1] - count - self._entries) // (count + 1)
        model.coef_[:, count : count + shared] *= self.sharing  # so that features need not be scaled later
        # Half precision, as stored: what is trained and what is loaded must be the same model.
        coef, intercept = row_a_class(model)
        self.coef_ = np.ascontiguousarray(coef, dtype=np.float16).astype(np.float32)
        self.intercept_ = intercept.astype(np.float32)
        self._set_weights()
        self.temperature_ = 1.0
        self.bias_ = np.zeros(len(self.classes_))
        return self

    def calibrate(
        self, scores: NDArray[Any], y: Sequence[str], unread: NDArray[np.bool_] | None = None
    ) -> StanceClassifier:
        """Fit temperature and class biases on out-of-fold scores (:func:`vector_scaling`).

        Also notes in ``expected_`` how sure it then is of these rows.

        Parameters
        ----------
        scores : ndarray of shape (n_samples, n_stances)
        y : sequence of str, length n_samples
        unread : ndarray of bool, shape (n_samples,), optional
            Rows that nobody had read who wrote the frames. On the others this knowledge looks better than it
            is, and the model surer than it may be: with 100 unread rows or more the temperature is theirs.

        Returns
        -------
        StanceClassifier
            Itself.
        """
        truth = np.searchsorted(self.classes_, np.asarray(y, dtype=str))
        self.temperature_, self.bias_ = vector_scaling(scores, truth)
        if unread is not None and unread.sum() >= UNREAD_MIN:
            own = scores[unread] / self.temperature_ + self.bias_
            excess = temperature_scaling(own, truth[unread])
            self.temperature_, self.bias_ = self.temperature_ * excess, self.bias_ / excess
        best = softmax(scores / self.temperature_ + self.bias_, axis=1).max(axis=1)
        self.expected_ = Expected(float(best.mean()), float((best < UNCLEAR_BELOW).mean()))
        return self

    def decision_function(self, X: Sequence[str], topics: Sequence[str]) -> NDArray[np.float32]:  # noqa: N803
        """Raw scores before calibration, shape (n_samples, n_stances)."""
        check_is_fitted(self)
        return self._scores([sentences(text) for text in X], topics)

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
        return self.predict_windows([sentences(text) for text in X], topics)

    def predict_windows(self, windows: Sequence[Sequence[str]], topics: Sequence[str]) -> NDArray[np.float32]:
        """As :meth:`predict_proba`, for texts that are cut into sentences already."""
        scores = self._scores(windows, topics) / self.temperature_ + self.bias_
        return softmax(scores, axis=1).astype(np.float32)

    def predict(self, X: Sequence[str], topics: Sequence[str]) -> NDArray[np.str_]:  # noqa: N803
        """Most probable stance of each text toward its topic."""
        return np.asarray(self.classes_[self.predict_proba(X, topics).argmax(axis=1)])

    def _set_knowledge(self) -> None:
        objects = load_taxonomy()
        if self.mention:
            objects = tuple(Topic(name, "", (), (), (MASK,), 0.0) for name in map(str, self.topics_))
        self._lexicon = LexiconFeatures(Lexicon.shipped(), objects)
        self._frames = FrameFeatures.shipped()
        self._entries = len(self._lexicon.lexicon.entries) + self._frames.columns

    def _scores(self, texts: Sequence[Sequence[str]], topics: Sequence[str]) -> NDArray[np.float32]:
        """As the augmented features times the coefficients, without building them: half the time."""
        count = len(texts)
        if not count:
            return np.zeros((0, len(self.classes_)), dtype=np.float32)
        *base, entries = self._blocks(texts, topics)
        known = {str(topic): place for place, topic in enumerate(self.topics_)}
        places = [known.get(topic, len(known)) for topic in topics]
        by_topic = product(base, self._of_base).reshape(count, len(known) + 1, -1)
        scores = by_topic[np.arange(count), places] + entries @ self._of_entries + self._offsets[places]
        return np.asarray(scores, dtype=np.float32)

    def _set_weights(self) -> None:
        """Sort the coefficients by what they are multiplied with; one row of offsets a topic, and none."""
        count = len(self.topics_)
        which, rest = np.split(self.coef_.T, [count])
        size = (len(rest) - self._entries) // (count + 1)
        shared, of_entries, own = np.split(rest, [size, size + self._entries])
        of_topics = [shared + part for part in np.split(own, count)]
        self._of_base = np.ascontiguousarray(np.hstack([*of_topics, shared]))
        self._of_entries = np.ascontiguousarray(of_entries)
        self._offsets = np.vstack([which, np.zeros_like(self.intercept_)]) + self.intercept_

    def _blocks(self, texts: Sequence[Sequence[str]], topics: Sequence[str]) -> list[Any]:
        """Features that count for all topics and for the own one; last, entries of lexicon and frames."""
        masked = self.extras_.masked(texts)
        pairs = Pairs.of(masked, topics)
        dense, entries = self._lexicon.transform(pairs)
        sums, frames = self._frames.transform(pairs)
        known = sparse.csr_matrix(sparse.hstack([entries * ENTRY_WEIGHT, frames * FRAME_WEIGHT]))
        base = [self.words_.transform(masked), dense * DENSE_WEIGHT, sums * DENSE_WEIGHT]
        return [*base, *self.extras_.transform(texts), known]

    def _features(self, texts: Sequence[Sequence[str]], topics: Sequence[str]) -> sparse.csr_matrix:
        *blocks, entries = self._blocks(texts, topics)
        base = sparse.hstack([sparse.csr_matrix(block) for block in blocks], format="csr")
        masks = [(np.asarray(topics, dtype=str) == topic).astype(np.float32) for topic in self.topics_]
        by_topic = [sparse.diags(mask) @ base for mask in masks]
        which = sparse.csr_matrix(np.stack(masks, axis=1))
        return sparse.csr_matrix(sparse.hstack([which, base * self.sharing, entries, *by_topic]))

    def tensors(self) -> Tensors:
        """Stored form."""
        check_is_fitted(self)
        return {
            **self.words_.tensors("stance"),
            **self.extras_.tensors(),
            "stance.coef": self.coef_.astype(np.float16),
            "stance.intercept": self.intercept_,
            "stance.calibration": np.array([self.temperature_, *self.bias_]),
        }

    @classmethod
    def from_tensors(
        cls, tensors: Tensors, classes: Sequence[str], topics: Sequence[str]
    ) -> StanceClassifier:
        """Inverse of :meth:`tensors`."""
        model = cls()
        model.classes_ = np.asarray(classes, dtype=str)
        model.topics_ = np.asarray(topics, dtype=str)
        model.words_ = WordFeatures().restore(tensors, "stance")
        model.extras_ = StanceExtras.from_tensors(tensors)
        model.set_params(**model.extras_.settings())
        model.coef_ = tensors["stance.coef"].astype(np.float32)
        model.intercept_ = tensors["stance.intercept"]
        model.temperature_, model.bias_ = (
            float(tensors["stance.calibration"][0]),
            tensors["stance.calibration"][1:],
        )
        model._set_knowledge()
        model._set_weights()
        return model
