"""F1 from counts, and how much it would change with other texts from the same source."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEVEL", "RESAMPLES", "SEED", "interval", "macro_f1", "micro_f1", "resampled"]

RESAMPLES = 1000
SEED = 2016
LEVEL = 0.95


def micro_f1(counts: NDArray[Any]) -> NDArray[np.float64]:
    """F1 of pooled decisions: 2 TP / (2 TP + FP + FN).

    C. D. Manning, P. Raghavan and H. Schütze, "Introduction to Information Retrieval", 2008, section 13.6.

    Parameters
    ----------
    counts : ndarray of shape (..., 3)
        True positives, false positives, false negatives.

    Returns
    -------
    ndarray of shape (...)
        0 to 1; 0 where nothing is true and nothing was found.

    Examples
    --------
    >>> float(micro_f1(np.array([2, 1, 3])))
    0.5
    """
    right, all_marks = 2 * counts[..., 0], 2 * counts[..., 0] + counts[..., 1] + counts[..., 2]
    return np.asarray(right / np.maximum(all_marks, 1), dtype=np.float64)


def macro_f1(confusion: NDArray[Any]) -> NDArray[np.float64]:
    """Mean of the classes' F1, each class 2 TP / (true + found) (the same book, section 13.6).

    Parameters
    ----------
    confusion : ndarray of shape (..., n_classes, n_classes + n_others)
        True classes by what was found; the others (`unclear`, missed) are never right.

    Returns
    -------
    ndarray of shape (...)
        0 to 1; a class that is neither true nor found counts as 0.

    Examples
    --------
    >>> float(macro_f1(np.array([[1, 1], [0, 2]])))  # (2/3 + 4/5) / 2
    0.7333333333333334
    """
    classes = confusion.shape[-2]
    right = np.diagonal(confusion[..., :classes], axis1=-2, axis2=-1)
    marks = confusion.sum(axis=-1) + confusion[..., :classes].sum(axis=-2)
    return np.asarray((2 * right / np.maximum(marks, 1)).mean(axis=-1), dtype=np.float64)


def resampled(counts: NDArray[Any], resamples: int = RESAMPLES, seed: int = SEED) -> NDArray[np.float64]:
    """Sums of counts over texts drawn with replacement, as many as there are.

    The bootstrap of B. Efron and R. J. Tibshirani, "An Introduction to the Bootstrap", 1993. Whole texts are
    drawn, since the topics of one text are not independent. Columns are summed over the same draws, so
    systems that stand side by side in `counts` can be compared pair by pair (P. Koehn, EMNLP 2004).

    Parameters
    ----------
    counts : ndarray of shape (n_texts, n_columns)
    resamples : int
    seed : int

    Returns
    -------
    ndarray of shape (resamples, n_columns)
    """
    chooser = np.random.default_rng(seed)
    size = len(counts)
    sums = np.zeros((resamples, counts.shape[1]))
    for i in range(resamples if size else 0):
        sums[i] = np.bincount(chooser.integers(size, size=size), minlength=size) @ counts
    return sums


def interval(values: NDArray[Any]) -> list[float]:
    """Bounds between which 95 % of the resampled values lie, rounded to four places.

    Examples
    --------
    >>> interval(np.arange(0, 1.0001, 0.001))
    [0.025, 0.975]
    """
    tail = 100 * (1 - LEVEL) / 2
    return [round(float(bound), 4) for bound in np.percentile(values, [tail, 100 - tail])]
