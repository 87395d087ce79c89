"""Text features that are counted once a sentence and summed for any window of sentences."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain, pairwise, repeat
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from classifiers.text import sentences

__all__ = [
    "NgramFeatures",
    "Pairs",
    "Tensors",
    "WordFeatures",
    "as_bytes",
    "product",
    "row_a_class",
    "sum_groups",
    "words_of",
]

Tensors = dict[str, NDArray[Any]]
_WORD = re.compile(r"\w++(?:['&.-]++\w++)*+|[%$€¥]")  # never goes back: half the time
_ASCII_WORD = re.compile(_WORD.pattern, re.ASCII)  # finds the same in ASCII, sooner
_MAYBE_ACCENT = re.compile("[^\0-\u02ff]")  # no combining character has a lower number


def as_bytes(text: str) -> NDArray[np.uint8]:
    """Text as a tensor of its UTF-8 bytes."""
    return np.frombuffer(text.encode(), dtype=np.uint8)


@lru_cache(maxsize=8192)  # windows overlap, and topics and stance read the same sentences
def words_of(sentence: str) -> tuple[str, ...]:
    """Words in lower case and without accents; signs of currencies and per cent stand alone.

    Examples
    --------
    >>> words_of("Société X's sales fell 3.5% at U.S.-based AT&T.")
    ('societe', "x's", 'sales', 'fell', '3.5', '%', 'at', 'u.s.-based', 'at&t')
    """
    sentence = sentence.lower()
    if sentence.isascii():
        return tuple(_ASCII_WORD.findall(sentence))
    decomposed = unicodedata.normalize("NFKD", sentence)
    plain = _MAYBE_ACCENT.sub(lambda m: "" if unicodedata.combining(m[0]) else m[0], decomposed)
    return tuple(_WORD.findall(plain))


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
    # In 32 bits, as scipy wants them: it would look through longer ones to shorten them.
    columns = np.fromiter(chain.from_iterable(groups), dtype=np.int32)
    pointers = np.cumsum([0, *map(len, groups)], dtype=np.int32)
    ones = np.ones(len(columns), dtype=np.float32)
    return sparse.csr_matrix((ones, columns, pointers), shape=(len(groups), size))


class Pairs(NamedTuple):
    """Texts, cut into sentences, and the topic that each is judged for: pairs of a topic and a sentence."""

    texts: Sequence[Sequence[str]]
    topics: Sequence[str]
    read: list[tuple[str, str]]
    """Each pair once, although windows overlap: what is found in it is found once."""
    groups: list[list[int]]
    """Indices of the pairs of each text, in order."""
    summing: sparse.csr_matrix
    """Sums rows of pairs to rows of texts, shape (n_texts, n_pairs)."""
    first: sparse.csr_matrix
    """The same, of the first sentence of each text alone."""

    @classmethod
    def of(cls, texts: Sequence[Sequence[str]], topics: Sequence[str]) -> Pairs:
        """Number the pairs.

        Examples
        --------
        >>> pairs = Pairs.of([["One.", "Two."], ["Two."]], ["cloud", "cloud"])
        >>> pairs.read, pairs.groups
        ([('cloud', 'One.'), ('cloud', 'Two.')], [[0, 1], [1]])
        """
        numbers: dict[tuple[str, str], int] = {}
        groups = [
            [numbers.setdefault((topic, sentence), len(numbers)) for sentence in text]
            for text, topic in zip(texts, topics, strict=True)
        ]
        count = len(numbers)
        first = sum_groups([group[:1] for group in groups], count)
        return cls(texts, topics, list(numbers), groups, sum_groups(groups, count), first)


def product(blocks: Sequence[Any], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blocks of columns, side by side, times weights, shape (n_rows, n_outputs); faster than joining them."""
    ends = np.cumsum([block.shape[1] for block in blocks])
    parts = np.split(weights, ends[:-1])
    return np.asarray(sum(block @ part for block, part in zip(blocks, parts, strict=True)))


def row_a_class(model: LogisticRegression) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coefficients and intercepts of every class, also of two, for which scikit-learn has a single row.

    Examples
    --------
    >>> model = LogisticRegression().fit([[0.0], [1.0]], ["against", "favor"])
    >>> coef, intercept = row_a_class(model)
    >>> coef.shape, intercept.shape, bool(coef[1, 0] - coef[0, 0] == model.coef_[0, 0])
    ((2, 1), (2,), True)
    """
    if len(model.coef_) > 1:
        return model.coef_, model.intercept_
    return np.vstack([-model.coef_, model.coef_]) / 2, np.array([-1, 1]) * model.intercept_ / 2


class WordFeatures:
    """TF-IDF of words and word pairs within sentences: sublinear frequency, smooth idf, unit rows.

    The formulas are those of scikit-learn's ``TfidfVectorizer(sublinear_tf=True)``. Counting and weighting
    are apart, so that overlapping windows of an article read each sentence once; a pair is looked up by the
    numbers of its words, which takes half the time of ``CountVectorizer``.

    Parameters
    ----------
    min_df : int
        Terms in fewer texts are dropped.
    """

    def __init__(self, min_df: int = 2) -> None:
        self.min_df = min_df
        self.idf = np.zeros(0, dtype=np.float32)
        self._set_terms([])

    def fit(self, texts: Sequence[str]) -> Self:
        """Choose terms and weights."""
        return self.fit_parts([sentences(text) for text in texts])

    def fit_parts(self, texts: Sequence[Sequence[str]]) -> Self:
        """As :meth:`fit`, for texts that are cut into sentences already."""
        frequency = Counter(
            term for text in texts for term in {term for part in text for term in self._terms(part)}
        )
        terms = sorted(term for term, count in frequency.items() if count >= self.min_df)
        counts = np.array([frequency[term] for term in terms], dtype=np.float64)
        self.idf = (np.log((1 + len(texts)) / (1 + counts)) + 1).astype(np.float32)
        self._set_terms(terms)
        return self

    def _terms(self, part: str) -> Iterable[str]:
        """Words and word pairs of a sentence."""
        words = words_of(part)
        return chain(words, (f"{left} {right}" for left, right in pairwise(words)))

    def counts(self, parts: Sequence[str]) -> sparse.csr_matrix:
        """Term counts of sentences, shape (n_sentences, n_terms)."""
        words = [words_of(part) for part in parts]
        numbers = map(self._words.get, chain.from_iterable(words), repeat(-1))
        found = np.fromiter(numbers, dtype=np.int64, count=sum(map(len, words)))
        rows = np.repeat(np.arange(len(parts)), [len(part) for part in words])
        known = found >= 0
        # A pair in so many texts has two words that are terms, so its code says it all.
        left = np.flatnonzero(known[:-1] & known[1:] & (rows[:-1] == rows[1:]))
        codes = found[left] * len(self.idf) + found[left + 1]
        order = np.argsort(codes)  # sorted ones are found in half the time
        left, codes = left[order], codes[order]
        places = np.searchsorted(self._pair_codes, codes)
        pairs = self._pair_codes[places] == codes
        columns = np.concatenate([found[known], self._pair_columns[places[pairs]]])
        rows = np.concatenate([rows[known], rows[left[pairs]]])
        cells, times = np.unique(rows * len(self.idf) + columns, return_counts=True)
        rows, columns = np.divmod(cells, max(1, len(self.idf)))
        pointers = np.searchsorted(rows, np.arange(len(parts) + 1)).astype(np.int32)
        shape = (len(parts), len(self.idf))
        return sparse.csr_matrix((times.astype(np.float32), columns.astype(np.int32), pointers), shape=shape)

    def weigh(self, counts: sparse.csr_matrix) -> sparse.csr_matrix:
        """TF-IDF rows of (summed) counts; length 1, or 0 without known terms."""
        rows = sparse.csr_matrix(counts, copy=True)
        rows.data = (1 + np.log(rows.data)) * self.idf[rows.indices]
        owners = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
        lengths = np.sqrt(np.bincount(owners, rows.data**2, minlength=rows.shape[0]))
        rows.data *= (1 / np.maximum(lengths, 1e-12)).astype(np.float32)[owners]
        return rows

    def transform(self, texts: Sequence[Sequence[str]]) -> sparse.csr_matrix:
        """TF-IDF rows of texts that are cut into sentences, shape (n_texts, n_terms)."""
        place = {part: i for i, part in enumerate(dict.fromkeys(part for text in texts for part in text))}
        counts = self.counts(list(place))  # windows share sentences: each is read once
        groups = [[place[part] for part in text] for text in texts]
        return self.weigh(sum_groups(groups, len(place)) @ counts)

    def keep(self, other: WordFeatures) -> None:
        """Drop the terms that `other` does not have; weights stay."""
        others = set(other._columns)
        kept = [column for column, term in enumerate(self._columns) if term in others]
        self.idf = self.idf[kept]
        self._set_terms([self._columns[column] for column in kept])

    def _set_terms(self, terms: Sequence[str]) -> None:
        self._columns = list(terms)
        self._words = {term: column for column, term in enumerate(terms) if " " not in term}
        pairs = []
        for column, term in enumerate(terms):
            left, blank, right = term.partition(" ")
            if blank:
                pairs.append((self._words[left] * len(terms) + self._words[right], column))
        pairs.sort()
        self._pair_codes = np.array([*(code for code, _ in pairs), np.iinfo(np.int64).max])
        self._pair_columns = np.array([column for _, column in pairs], dtype=np.int64)

    def tensors(self, prefix: str) -> Tensors:
        """Stored form: terms joined by line breaks as UTF-8, and their weights."""
        return {f"{prefix}.terms": as_bytes("\n".join(self._columns)), f"{prefix}.idf": self.idf}

    def restore(self, tensors: Tensors, prefix: str) -> Self:
        """Inverse of :meth:`tensors`."""
        self.idf = tensors[f"{prefix}.idf"]
        self._set_terms(tensors[f"{prefix}.terms"].tobytes().decode().split("\n"))
        return self


class NgramFeatures(WordFeatures):
    """As :class:`WordFeatures`, of other n-grams, counted by scikit-learn.

    Parameters
    ----------
    min_df : int
        Terms in fewer texts are dropped.
    options : mapping
        Of ``CountVectorizer``.
    """

    def __init__(self, min_df: int, options: dict[str, Any]) -> None:
        self._vectorizer = CountVectorizer(strip_accents="unicode", dtype=np.float32, **options)
        self._analyze = self._vectorizer.build_analyzer()
        super().__init__(min_df)

    def _terms(self, part: str) -> Iterable[str]:
        return list(self._analyze(part))

    def counts(self, parts: Sequence[str]) -> sparse.csr_matrix:
        """Term counts of sentences, shape (n_sentences, n_terms)."""
        return sparse.csr_matrix(self._vectorizer.transform(parts))

    def _set_terms(self, terms: Sequence[str]) -> None:
        self._columns = list(terms)
        self._vectorizer.vocabulary = {term: column for column, term in enumerate(terms)}
        if terms:
            self._vectorizer._validate_vocabulary()  # noqa: SLF001 - sets vocabulary_ without reading texts
