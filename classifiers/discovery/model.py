"""BERTopic as its authors mean it, without torch: our embeddings, UMAP, HDBSCAN, c-TF-IDF, MMR labels."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from classifiers.embedding import Embedding, directions
from classifiers.errors import ModelError

__all__ = ["Described", "ModelOptions", "TopicModel", "cosines", "embed", "need_bertopic", "quiet_import"]

Vectors = NDArray[np.float32]
TOKEN = r"(?u)\b[^\W\d_][\w'’&-]*\w\b"  # noqa: S105 - no password; the apostrophe of typesetters
TERMS = 30
REPRESENTATIVES = 16
"""Twice as many as a topic of one's own needs to be detected by examples (``topics suggest``)."""
# What feeds write around their texts.
BOILERPLATE = ("continue", "reading", "read", "news", "says", "said", "say", "new", "year", "years", "old")
INSTALL = (
    "`stancewatch discover` needs BERTopic: pip install 'stancewatch[discover]' (adds torch, about 2 GB),"
    " or without torch: pip install --no-deps -r requirements-discover.lock"
)


class ModelOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the model; the defaults come from trying on real headlines.

    Attributes
    ----------
    reduction : str
        ``umap`` or ``pca``: faster, with less memory, and coarser.
    neighbors : int
        UMAP: how many neighbours a document has.
    components : int
        Dimensions that are clustered in.
    cluster_min : int
        HDBSCAN: distinct documents that make a topic.
    samples_min : int
        HDBSCAN: the larger, the more documents belong to no topic.
    method : str
        HDBSCAN: ``eom`` takes the clusters that last, ``leaf`` the smallest ones.
    epochs : int
        UMAP: rounds of its optimisation.
    random_state : int
    """

    reduction: Literal["umap", "pca"] = "umap"
    neighbors: int = 10
    components: int = 5
    cluster_min: int = 5
    samples_min: int = 3
    method: Literal["eom", "leaf"] = "eom"
    epochs: int = 200
    random_state: int = 0


@dataclass(frozen=True, slots=True)
class Described:
    """What BERTopic says of one topic.

    Attributes
    ----------
    weights : dict of str to float
        c-TF-IDF of its 30 strongest terms.
    words : list of str
        Ten of them, chosen by maximal marginal relevance.
    representatives : list of int
        Indices of documents.
    """

    weights: dict[str, float]
    words: list[str]
    representatives: list[int] = field(default_factory=list)


def embed(texts: Sequence[str]) -> Vectors:
    """A vector a text, of length 1, or 0 for a text without words; shape (n_texts, 256)."""
    return directions(Embedding.shared().sums(texts))


def cosines(left: Vectors, right: Vectors, center: Vectors | float = 0.0) -> Vectors:
    """Cosine of each row of one with each of the other, as seen from `center`."""
    a, b = (
        rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        for rows in (left - center, right - center)
    )
    return np.asarray(a @ b.T, dtype=np.float32)


def need_bertopic() -> None:
    """Insist that BERTopic is installed, without importing it.

    Raises
    ------
    ModelError
        With the command that installs it.
    """
    missing = [name for name in ("bertopic", "umap") if find_spec(name) is None]
    if missing:
        message = f"{INSTALL} (missing: {', '.join(missing)})"
        raise ModelError(message)


@contextmanager
def quiet_import() -> Iterator[None]:
    """Keep the warning filters of the process as they are: BERTopic's import adds its own for good.

    Its advice on assignments that are not its own is not logged either: that is what we mean to do.
    """
    logging.getLogger("BERTopic").setLevel(logging.ERROR)
    logging.getLogger("numba").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations within their own dependencies
        yield


class TopicModel:
    """One fit of BERTopic to a window of distinct documents.

    Parameters
    ----------
    options : ModelOptions

    Attributes
    ----------
    model_ : BERTopic
    labels_ : ndarray of shape (n_documents,)
        Cluster of each document; -1 for none.

    Raises
    ------
    ModelError
        When BERTopic is not installed.
    """

    def __init__(self, options: ModelOptions | None = None) -> None:
        self.options = options or ModelOptions()

    def fit(self, texts: Sequence[str], vectors: Vectors) -> TopicModel:
        """Cluster the documents; fewer than twice ``cluster_min`` have no clusters."""
        self.texts_, self.vectors_ = list(texts), vectors
        self.labels_: NDArray[np.intp] = np.full(len(texts), -1)
        self.model_: Any = None
        enough = max(2 * self.options.cluster_min, self.options.components + 3)
        if len(texts) < enough or not _vocabulary(texts):
            return self
        with quiet_import():
            self.model_ = self._bertopic()
            labels, _ = self.model_.fit_transform(self.texts_, embeddings=self._centered())
        self.labels_ = self._told = np.asarray(labels, dtype=np.intp)
        return self

    def describe(self, labels: Sequence[int] | NDArray[np.intp]) -> dict[int, Described]:
        """Words and representatives of topics, by c-TF-IDF over this assignment of the documents.

        Parameters
        ----------
        labels : sequence of int
            Topic of each document, any numbers; -1 for none.
        """
        own = np.asarray(labels)
        topics = sorted({int(label) for label in own} - {-1})
        if self.model_ is None or not topics:
            return {}
        number = {topic: index for index, topic in enumerate(topics)}
        dense = [number.get(int(label), -1) for label in own]
        with quiet_import():
            if not np.array_equal(own, self._told):
                self._retell(dense)
                self._told = own
            terms = self.model_.vectorizer_model.get_feature_names_out()
        table = self.model_.c_tf_idf_
        first = 1 if -1 in dense else 0
        return {
            topic: Described(
                _strongest(table[[index + first]].toarray().ravel(), terms),
                [word for word, _ in self.model_.get_topic(index) or () if word],
                self._representatives(np.flatnonzero(own == topic)),
            )
            for topic, index in number.items()
        }

    def _retell(self, labels: Sequence[int]) -> None:
        model = self.model_
        model.update_topics(
            self.texts_,
            topics=list(labels),
            vectorizer_model=model.vectorizer_model,
            ctfidf_model=model.ctfidf_model,
            representation_model=model.representation_model,
        )

    def _representatives(self, members: NDArray[np.intp]) -> list[int]:
        """The documents nearest to the middle of the topic."""
        rows = self.vectors_[members]
        middle = rows.mean(axis=0, keepdims=True)
        near = cosines(rows, middle).ravel()
        return [int(members[at]) for at in np.argsort(-near, kind="stable")[:REPRESENTATIVES]]

    def _centered(self) -> Vectors:
        return directions(self.vectors_, self.vectors_.mean(axis=0))

    def _reduction(self) -> Any:
        options = self.options
        if options.reduction == "pca":
            from sklearn.decomposition import PCA  # noqa: PLC0415

            return PCA(options.components, random_state=options.random_state)
        from umap import UMAP  # noqa: PLC0415 - an extra, and heavy

        return UMAP(
            n_neighbors=min(options.neighbors, len(self.texts_) - 1),
            n_components=options.components,
            min_dist=0.0,
            metric="cosine",
            init="pca",  # so that the next window begins alike
            n_epochs=options.epochs,
            random_state=options.random_state,
            n_jobs=1,
        )

    def _bertopic(self) -> Any:
        need_bertopic()
        from bertopic import BERTopic  # noqa: PLC0415 - an extra, and heavy
        from bertopic.representation import MaximalMarginalRelevance  # noqa: PLC0415
        from bertopic.vectorizers import ClassTfidfTransformer  # noqa: PLC0415
        from sklearn.cluster import HDBSCAN  # noqa: PLC0415
        from sklearn.feature_extraction.text import CountVectorizer  # noqa: PLC0415

        options = self.options
        return BERTopic(
            embedding_model=_backend(),
            umap_model=self._reduction(),
            hdbscan_model=HDBSCAN(
                min_cluster_size=options.cluster_min,
                min_samples=options.samples_min,
                cluster_selection_method=options.method,
                copy=True,
            ),
            vectorizer_model=CountVectorizer(vocabulary=_vocabulary(self.texts_), token_pattern=TOKEN),
            ctfidf_model=ClassTfidfTransformer(reduce_frequent_words=True),
            representation_model=MaximalMarginalRelevance(diversity=0.1, top_n_words=10),
            calculate_probabilities=False,
            top_n_words=TERMS,
        )


def _vocabulary(texts: Sequence[str]) -> list[str]:
    """The words that name topics: in at least two documents, no stop words.

    Counted here, since BERTopic's vectorizer sees one text a topic, and its `min_df` would count topics.
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer  # noqa: PLC0415

    stop = ENGLISH_STOP_WORDS.union(BOILERPLATE)
    counter = CountVectorizer(token_pattern=TOKEN, binary=True)
    try:
        counts = np.asarray(counter.fit_transform(texts).sum(axis=0)).ravel()
    except ValueError:  # not a single word
        return []
    words = zip(counter.get_feature_names_out(), counts, strict=True)
    return sorted(str(word) for word, count in words if count > 1 and word not in stop)


def _strongest(row: NDArray[np.float64], terms: Sequence[str]) -> dict[str, float]:
    best = np.argsort(-row, kind="stable")[:TERMS]
    length = float(np.linalg.norm(row[best])) or 1.0
    return {str(terms[at]): round(float(row[at]) / length, 4) for at in best if row[at] > 0}


def _backend() -> Any:
    """Our embedding for BERTopic, which embeds words to choose labels."""
    from bertopic.backend import BaseEmbedder  # noqa: PLC0415

    class Backend(BaseEmbedder):  # type: ignore[misc]  # BERTopic ships no types
        def embed(self, documents: Sequence[str], verbose: bool = False) -> Vectors:  # noqa: ARG002
            return embed(list(documents))

    return Backend()
