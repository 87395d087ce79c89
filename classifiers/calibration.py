"""Probabilities that mean something, fitted on out-of-fold scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

__all__ = ["calibration_error", "risk_coverage", "vector_scaling"]


def calibration_error(confidence: NDArray[Any], correct: NDArray[Any], bins: int = 10) -> float:
    """Expected calibration error with equal-width bins.

    The mean over bins of |accuracy - confidence|, weighted by the share of the bin (Naeini et al., AAAI
    2015).

    Parameters
    ----------
    confidence : ndarray of shape (n_samples,)
        Probability of the decided class, 0 to 1.
    correct : ndarray of bool, shape (n_samples,)
    bins : int

    Returns
    -------
    float
        0 to 1; not a number without samples.

    Examples
    --------
    >>> round(calibration_error(np.array([0.9, 0.9]), np.array([True, False])), 3)
    0.4
    """
    if not len(confidence):
        return float("nan")
    slots = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        np.mean(slots == slot) * abs(correct[slots == slot].mean() - confidence[slots == slot].mean())
        for slot in np.unique(slots)
    ]
    return float(np.sum(gaps))


def vector_scaling(
    scores: NDArray[Any], truth: NDArray[Any], penalty: float = 0.01
) -> tuple[float, NDArray[Any]]:
    """Temperature and class biases that minimise the log loss of softmax(scores / T + b).

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, with one temperature for all classes.
    The biases also turn the class shares of the training mix into those of the rows given here.

    Parameters
    ----------
    scores : ndarray of shape (n_samples, n_classes)
        Out of fold: of a model that has not seen the row.
    truth : ndarray of int, shape (n_samples,)
        Index of the true class.
    penalty : float
        L2 penalty on the biases.

    Returns
    -------
    (float, ndarray of shape (n_classes,))
        The last class has bias 0.
    """
    rows = np.arange(len(truth))

    def loss(parameters: NDArray[Any]) -> float:
        z = scores * np.exp(parameters[0]) + np.append(parameters[1:], 0)
        misfit = (logsumexp(z, axis=1) - z[rows, truth]).mean()
        return float(misfit + penalty * (parameters[1:] ** 2).sum())

    found = minimize(loss, np.zeros(scores.shape[1]), method="L-BFGS-B").x
    return float(np.exp(-found[0])), np.append(found[1:], 0)


def risk_coverage(confidence: NDArray[Any], correct: NDArray[Any]) -> list[dict[str, float]]:
    """Accuracy of what is kept when decisions below a confidence are withheld.

    Returns
    -------
    list of dict
        ``threshold``, ``coverage`` (share kept) and ``accuracy``, all 0 to 1.
    """
    rows = []
    for threshold in np.round(np.arange(0, 0.91, 0.1), 1):
        kept = confidence >= threshold
        if kept.any():
            rows.append(
                {
                    "threshold": float(threshold),
                    "coverage": round(float(kept.mean()), 4),
                    "accuracy": round(float(correct[kept].mean()), 4),
                }
            )
    return rows
