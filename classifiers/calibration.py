"""Probabilities that mean something, fitted on out-of-fold scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import logsumexp

__all__ = [
    "calibration_error",
    "reliability",
    "risk_coverage",
    "risk_curve",
    "temperature_scaling",
    "vector_scaling",
]


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
    slots = _slots(confidence, bins)
    gaps = [
        np.mean(slots == slot) * abs(correct[slots == slot].mean() - confidence[slots == slot].mean())
        for slot in np.unique(slots)
    ]
    return float(np.sum(gaps))


def _slots(confidence: NDArray[Any], bins: int) -> NDArray[np.intp]:
    """Number of the equal-width bin of each probability; 1 belongs to the last."""
    return np.minimum((confidence * bins).astype(np.intp), bins - 1)


def reliability(confidence: NDArray[Any], correct: NDArray[Any], bins: int = 10) -> list[dict[str, Any]]:
    """Points of a reliability diagram (DeGroot and Fienberg, The Statistician 1983).

    Parameters
    ----------
    confidence, correct, bins
        As for :func:`calibration_error`, which is the mean of |accuracy - confidence| over these bins.

    Returns
    -------
    list of dict
        Of each bin that is not empty: ``low`` and ``high`` (its bounds), ``count``, mean ``confidence``,
        ``accuracy`` and its 95 % ``interval`` (E. B. Wilson, JASA 1927).

    Examples
    --------
    >>> reliability(np.array([0.95, 0.97, 0.31]), np.array([True, False, False]))[1]
    {'low': 0.9, 'high': 1.0, 'count': 2, 'confidence': 0.96, 'accuracy': 0.5, 'interval': [0.0945, 0.9055]}
    """
    slots = _slots(confidence, bins)
    return [
        {
            "low": round(int(slot) / bins, 4),
            "high": round((int(slot) + 1) / bins, 4),
            "count": int((slots == slot).sum()),
            "confidence": round(float(confidence[slots == slot].mean()), 4),
            "accuracy": round(float(correct[slots == slot].mean()), 4),
            "interval": _wilson(int(correct[slots == slot].sum()), int((slots == slot).sum())),
        }
        for slot in np.unique(slots)
    ]


def _wilson(right: int, count: int, z: float = 1.959964) -> list[float]:
    """Score interval of a share."""
    middle = (right + z**2 / 2) / (count + z**2)
    half = z * (right * (count - right) / count + z**2 / 4) ** 0.5 / (count + z**2)
    return [round(max(0.0, middle - half), 4), round(min(1.0, middle + half), 4)]


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

    def loss(parameters: NDArray[Any]) -> float:
        z = scores * np.exp(parameters[0]) + np.append(parameters[1:], 0)
        return _log_loss(z, truth) + penalty * float((parameters[1:] ** 2).sum())

    found = minimize(loss, np.zeros(scores.shape[1]), method="L-BFGS-B").x
    return float(np.exp(-found[0])), np.append(found[1:], 0)


def temperature_scaling(scores: NDArray[Any], truth: NDArray[Any]) -> float:
    """Temperature that minimises the log loss of softmax(scores / T); above 1: the scores are too sure.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2. Between 0.2 and 5.

    Parameters
    ----------
    scores : ndarray of shape (n_samples, n_classes)
    truth : ndarray of int, shape (n_samples,)
        Index of the true class.

    Returns
    -------
    float

    Examples
    --------
    >>> sure_and_right_in_half = np.array([[4.0, 0.0], [4.0, 0.0]]), np.array([0, 1])
    >>> round(temperature_scaling(*sure_and_right_in_half), 1)
    5.0
    """

    def loss(logarithm: float) -> float:
        return _log_loss(scores / np.exp(logarithm), truth)

    best = minimize_scalar(loss, bounds=(-np.log(5), np.log(5)), method="bounded")
    return float(np.exp(best.x))


def _log_loss(scores: NDArray[Any], truth: NDArray[Any]) -> float:
    """Mean of -log softmax(scores) at the true classes."""
    return float((logsumexp(scores, axis=1) - scores[np.arange(len(truth)), truth]).mean())


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


def risk_curve(
    confidence: NDArray[Any], correct: NDArray[Any], points: int = 100
) -> tuple[list[dict[str, float]], float]:
    """Share of wrong decisions among the most confident ones, for every share kept, and its mean.

    R. El-Yaniv and Y. Wiener, "On the Foundations of Noise-free Selective Classification", JMLR 2010. The
    mean over coverages is the area under the curve (AURC; Geifman, Uziel and El-Yaniv, ICLR 2019); decisions
    of one confidence are kept or withheld together.

    Parameters
    ----------
    confidence : ndarray of shape (n_samples,)
    correct : ndarray of bool, shape (n_samples,)
    points : int
        At most so many points are returned, evenly spaced; the area is of all.

    Returns
    -------
    (list of dict, float)
        Points by rising ``coverage``, with ``risk`` and the ``threshold`` of confidence, all 0 to 1; the
        area, 0 without samples.

    Examples
    --------
    >>> risk_curve(np.array([0.9, 0.6]), np.array([True, False]))[1]  # 0.5 x 0 + 0.5 x 0.5
    0.25
    """
    if not len(confidence):
        return [], 0.0
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence = confidence[order]
    last = np.flatnonzero(np.append(np.diff(sorted_confidence) != 0, True))
    risk = np.cumsum(~correct[order])[last] / (last + 1)
    coverage = (last + 1) / len(confidence)
    area = float(np.sum(np.diff(coverage, prepend=0) * risk))
    shown = np.unique(np.linspace(0, len(last) - 1, min(points, len(last))).round().astype(int))
    curve = [
        {
            "coverage": round(float(coverage[i]), 4),
            "risk": round(float(risk[i]), 4),
            "threshold": round(float(sorted_confidence[last[i]]), 4),
        }
        for i in shown
    ]
    return curve, round(area, 4)
