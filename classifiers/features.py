"""Text features that are counted once a sentence and summed for any window of sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

from classifiers.text import sentences

__all__ = ["Tensors", "WordFeatures", "sum_groups"]

Tensors = dict[str, NDArray[Any]]


def sum_groups(groups: Sequence[Sequence[int]], size: int) -> sparse.csr_matrix:
    """Matrix that sums rows: row i of ``sum_groups(groups, n) @ rows`` is the sum of ``rows[groups[i]]``.

    Parameters
    ----------
    groups : sequence of sequences of int
        Indices below `size`.
    size : int
        Number of rows to sum over.

    Returns
    -------
    csr_matrix of shape (len(groups), size)
    """
    columns = [index for group in groups for index in group]
    pointers = np.cumsum([0, *(len(group) for group in groups)])
    ones = np.ones(len(columns), dtype=np.float32)
    return sparse.csr_matrix((ones, columns, pointers), shape=(len(groups), size))


class WordFeatures:
    """TF-IDF of words and word pairs within sentences: sublinear frequency, unit rows.

    Counting and weighting are apart, so that overlapping windows of an article read each sentence once.

    Parameters
    ----------
    min_df : int
        Terms in fewer texts are dropped.
    """

    def __init__(self, min_df: int = 2) -> None:
        self.vectorizer = CountVectorizer(
            ngram_range=(1, 2),
            strip_accents="unicode",
            token_pattern=r"(?u)\b\w[\w'&.-]*\w\b|\b\w\b|[%$€¥]",  # noqa: S106 - no password
            dtype=np.float32,
        )
        self.min_df = min_df
        self.idf = np.zeros(0, dtype=np.float32)

    def fit(self, texts: Sequence[str]) -> WordFeatures:
        """Choose terms and weights."""
        own = [sentences(text) for text in texts]
        counts = self.vectorizer.fit_transform([part for text in own for part in text])
        ends = np.cumsum([len(text) for text in own])
        groups = [range(end - len(text), end) for text, end in zip(own, ends, strict=True)]
        by_text = sum_groups(groups, counts.shape[0]) @ counts
        kept = np.flatnonzero(np.asarray((by_text > 0).sum(axis=0)).ravel() >= self.min_df)
        terms = self.vectorizer.get_feature_names_out()[kept]
        self.idf = TfidfTransformer().fit(by_text[:, kept]).idf_.astype(np.float32)
        self._set_terms(terms.tolist())
        return self

    def counts(self, parts: Sequence[str]) -> sparse.csr_matrix:
        """Term counts of sentences, shape (n_sentences, n_terms)."""
        if not len(parts):
            return sparse.csr_matrix(np.zeros((0, len(self.idf)), dtype=np.float32))
        return sparse.csr_matrix(self.vectorizer.transform(parts))

    def weigh(self, counts: sparse.csr_matrix) -> sparse.csr_matrix:
        """TF-IDF rows of (summed) counts; length 1, or 0 without known terms."""
        rows = sparse.csr_matrix(counts, copy=True)
        rows.data = (1 + np.log(rows.data)) * self.idf[rows.indices]
        lengths = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
        return sparse.csr_matrix(sparse.diags((1 / np.maximum(lengths, 1e-12)).astype(np.float32)) @ rows)

    def transform(self, texts: Sequence[Sequence[str]]) -> sparse.csr_matrix:
        """TF-IDF rows of texts that are cut into sentences, shape (n_texts, n_terms)."""
        place = {part: i for i, part in enumerate(dict.fromkeys(part for text in texts for part in text))}
        counts = self.counts(list(place))  # windows share sentences: each is read once
        groups = [[place[part] for part in text] for text in texts]
        return self.weigh(sum_groups(groups, len(place)) @ counts)

    def _set_terms(self, terms: Sequence[str]) -> None:
        self.vectorizer.vocabulary = {term: index for index, term in enumerate(terms)}
        self.vectorizer._validate_vocabulary()  # noqa: SLF001 - sets vocabulary_ without reading texts

    def tensors(self, prefix: str) -> Tensors:
        """Stored form: terms joined by line breaks as UTF-8, and their weights."""
        terms = "\n".join(self.vectorizer.get_feature_names_out()).encode()
        return {f"{prefix}.terms": np.frombuffer(terms, dtype=np.uint8), f"{prefix}.idf": self.idf}

    @classmethod
    def from_tensors(cls, tensors: Tensors, prefix: str) -> WordFeatures:
        """Inverse of :meth:`tensors`."""
        features = cls()
        features.idf = tensors[f"{prefix}.idf"]
        features._set_terms(tensors[f"{prefix}.terms"].tobytes().decode().split("\n"))
        return features
