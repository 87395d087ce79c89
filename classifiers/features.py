"""Shared text features: word 1- and 2-grams, TF-IDF weighted, without pickle in the stored form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

__all__ = ["Tensors", "make_vectorizer", "restore_vectorizer", "vectorizer_tensors"]

Tensors = dict[str, NDArray[Any]]


def make_vectorizer(*, min_df: int = 2) -> TfidfVectorizer:
    """Unfitted vectorizer: lower case, words and word pairs, sublinear term frequency, unit rows."""
    return TfidfVectorizer(
        ngram_range=(1, 2),
        min_df=min_df,
        sublinear_tf=True,
        strip_accents="unicode",
        token_pattern=r"(?u)\b\w[\w'&.-]*\w\b|\b\w\b|[%$€¥]",  # noqa: S106 - no password
        dtype=np.float32,
    )


def vectorizer_tensors(vectorizer: TfidfVectorizer, prefix: str) -> Tensors:
    """Stored form of a fitted vectorizer: terms joined by line breaks as UTF-8, and their weights."""
    terms = "\n".join(vectorizer.get_feature_names_out()).encode()
    return {
        f"{prefix}.terms": np.frombuffer(terms, dtype=np.uint8),
        f"{prefix}.idf": np.asarray(vectorizer.idf_, dtype=np.float32),
    }


def restore_vectorizer(tensors: Tensors, prefix: str) -> TfidfVectorizer:
    """Inverse of :func:`vectorizer_tensors`."""
    terms: Sequence[str] = tensors[f"{prefix}.terms"].tobytes().decode().split("\n")
    vectorizer = make_vectorizer()
    vectorizer.vocabulary = {term: index for index, term in enumerate(terms)}
    vectorizer.idf_ = tensors[f"{prefix}.idf"]
    return vectorizer
