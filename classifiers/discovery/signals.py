"""Which topics grow: a test of each topic against its own baseline, not a list of the largest.

Of a topic, `k1` of the `n1` documents of the last day are counted, and `k0` of the `n0` before them (the rest
of the window, and the days that the registry remembers); the pipeline gives each topic's core for it
(``Registry.core``). If nothing changed, `k1` has the mean ``m = (k0 + 1/2) n1 / n0`` and, as the baseline
itself is an estimate, the variance ``m f (1 + n1 / n0)``: a negative binomial law. `f`, at least 1, is how
much more than Poisson counts the topics vary from day to day (news comes in bursts), estimated over all
topics of the window together. The p-values of one refit are corrected by Benjamini and Hochberg's rule,
since a hundred topics are tested at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from classifiers.discovery.topic import Signal, Topic
from classifiers.discovery.window import Document

__all__ = ["SignalOptions", "adjusted", "classify", "dispersion", "tails"]

DAY = 86400.0
HISTORY_DAYS = 28
DISPERSION_MAX = 4.0


@dataclass(frozen=True, slots=True)
class SignalOptions:
    """When a topic grows.

    Attributes
    ----------
    recent_hours : float
        What counts as now.
    strong_q, weak_q : float
        Largest false discovery rates.
    strong_growth, weak_growth : float
        Least ratios of the shares now and before.
    strong_documents, weak_documents : int
        Least distinct documents now.
    """

    recent_hours: float = 24.0
    strong_q: float = 0.01
    weak_q: float = 0.1
    strong_growth: float = 2.0
    weak_growth: float = 1.5
    strong_documents: int = 4
    weak_documents: int = 2


@dataclass(frozen=True, slots=True)
class Count:
    """Documents of a topic and of all: now and before."""

    k1: int
    n1: int
    k0: int
    n0: int

    @property
    def growth(self) -> float:
        """Ratio of the share now to that before; half a document is added to each side."""
        return ((self.k1 + 0.5) / (self.n1 + 0.5)) / ((self.k0 + 0.5) / (self.n0 + 0.5))


def tails(count: Count, factor: float = 1.0) -> tuple[float, float]:
    """Probability of at least, and of at most, so many documents if nothing changed.

    Examples
    --------
    >>> up, down = tails(Count(k1=9, n1=100, k0=9, n0=900))
    >>> up < 0.0001, down > 0.99
    (True, True)
    """
    from scipy.stats import nbinom  # noqa: PLC0415 - keeps the start of commands fast

    if not count.n0 or not count.n1:
        return 1.0, 1.0
    mean = (count.k0 + 0.5) * count.n1 / count.n0
    share = 1.0 / (factor * (1 + count.n1 / count.n0))  # mean / variance
    law = nbinom(mean * share / (1 - share), share)
    return float(law.sf(count.k1 - 1)), float(law.cdf(count.k1))


def dispersion(counts: NDArray[np.int64], totals: NDArray[np.int64]) -> float:
    """Variance over mean of daily counts, pooled over topics; 1 for Poisson counts.

    Parameters
    ----------
    counts : ndarray of shape (n_topics, n_days)
    totals : ndarray of shape (n_days,)
        Documents of each day.
    """
    days = totals > 0
    if counts.size == 0 or days.sum() < 3:  # noqa: PLR2004 - two days tell nothing
        return 1.0
    shares = counts[:, days].sum(axis=1) / totals[days].sum()
    means = shares[:, None] * totals[days][None, :]
    large = shares > 0
    if not large.any():
        return 1.0
    chi = ((counts[:, days][large] - means[large]) ** 2 / means[large]).sum()
    return float(np.clip(chi / (large.sum() * (days.sum() - 1)), 1.0, DISPERSION_MAX))


def adjusted(p_values: Sequence[float]) -> NDArray[np.float64]:
    """Benjamini and Hochberg's q-values, in the same order.

    Examples
    --------
    >>> adjusted([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.04, 0.04]
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not len(p):
        return p
    order = np.argsort(-p)
    ranks = np.arange(len(p), 0, -1)
    out = np.empty_like(p)
    out[order] = np.minimum.accumulate(np.minimum(1.0, p[order] * len(p) / ranks))
    return out


def classify(
    topics: Sequence[Topic],
    documents: Sequence[Document],
    assigned: Sequence[str],
    end: float,
    options: SignalOptions | None = None,
) -> None:
    """Set growth, probabilities, signal and history of each topic.

    Parameters
    ----------
    topics : sequence of Topic
        Living ones.
    documents : sequence of Document
        Distinct ones of the window.
    assigned : sequence of str
        Topic id of each.
    end : float
        Now, in event time.
    options : SignalOptions
    """
    options = options or SignalOptions()
    since = end - options.recent_hours * 3600
    begin = min((d.time for d in documents), default=end)
    recent = [d.time > since for d in documents]
    now = Counter(name for name, new in zip(assigned, recent, strict=True) if new)
    rest = Counter(name for name, new in zip(assigned, recent, strict=True) if not new)
    outlets: dict[str, set[str]] = {}
    for document, name, new in zip(documents, assigned, recent, strict=True):
        if new:
            outlets.setdefault(name, set()).add(document.source)
    n1 = sum(recent)
    table, totals, first_day = _by_day(topics, documents, assigned, begin, since)
    factor = dispersion(table, totals)
    counts = []
    for topic in topics:
        older = [pair for day, pair in topic.history.items() if (int(day) + 1) * DAY <= begin]
        k0 = rest[topic.id] + sum(pair[0] for pair in older)
        n0 = len(documents) - n1 + sum(pair[1] for pair in older)
        counts.append(Count(now[topic.id], n1, k0, n0))
    found = [tails(count, factor) for count in counts]
    ups, downs = adjusted([up for up, _ in found]), adjusted([down for _, down in found])
    for row, (topic, count) in enumerate(zip(topics, counts, strict=True)):
        several = len(outlets.get(topic.id, set()) - {""}) != 1  # one outlet's series is no trend
        topic.recent, topic.growth = count.k1, round(count.growth, 3)
        rising = count.growth >= 1
        topic.p_value = found[row][0 if rising else 1]
        topic.q_value = float(ups[row] if rising else downs[row])
        topic.signal = _signal(count, topic.q_value, options, several=several)
        for day in range(table.shape[1]):
            if totals[day]:
                topic.history[str(first_day + day)] = [int(table[row, day]), int(totals[day])]
        oldest = int(end // DAY) - HISTORY_DAYS
        topic.history = {day: pair for day, pair in topic.history.items() if int(day) >= oldest}


def _signal(count: Count, q: float, options: SignalOptions, *, several: bool) -> Signal:
    growth = count.growth
    if growth < 1:
        return "fading" if q <= options.weak_q and growth <= 1 / options.weak_growth else "noise"
    strong = q <= options.strong_q and growth >= options.strong_growth
    if strong and several and count.k1 >= options.strong_documents:
        return "strong"
    weak = q <= options.weak_q and growth >= options.weak_growth and count.k1 >= options.weak_documents
    return "weak" if weak else "noise"


def _by_day(
    topics: Sequence[Topic],
    documents: Sequence[Document],
    assigned: Sequence[str],
    begin: float,
    since: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Counts of the whole UTC days between the begin of the window and the recent hours."""
    first, last = int(-(-begin // DAY)), int(since // DAY)
    days = max(0, last - first)
    rows: Mapping[str, int] = {topic.id: row for row, topic in enumerate(topics)}
    table = np.zeros((len(topics), days), dtype=np.int64)
    totals = np.zeros(days, dtype=np.int64)
    for document, name in zip(documents, assigned, strict=True):
        day = int(document.time // DAY) - first
        if 0 <= day < days:
            totals[day] += 1
            if name in rows:
                table[rows[name], day] += 1
    return table, totals, first
