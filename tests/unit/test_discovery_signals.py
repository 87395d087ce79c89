"""Growth is tested against the topic's own baseline; figures were worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifiers.discovery.signals import Count, SignalOptions, adjusted, classify, dispersion, tails
from classifiers.discovery.topic import Topic
from classifiers.discovery.window import Document

DAY = 86400.0
END = 20 * DAY


def stream(days: dict[int, int], topic: str, others: int = 20) -> tuple[list[Document], list[str]]:
    """So many documents of the topic by day before END, beside others."""
    documents, names = [], []
    for day in range(10):
        for n in range(days.get(day, 0) + others):
            own = n < days.get(day, 0)
            time = END - day * DAY - (n + 1) * 60
            documents.append(Document(f"{topic}-{day}-{n}", time, "x", f"outlet{n % 3}"))
            names.append(topic if own else "")
    return documents, names


def signal_of(days: dict[int, int], **values: object) -> Topic:
    """The topic after one look."""
    topic = Topic(id="t", label="", born=0, seen=0)
    documents, names = stream(days, "t")
    if values.get("outlet"):
        documents = [Document(d.id, d.time, d.text, str(values["outlet"])) for d in documents]
    classify([topic], documents, names, END, SignalOptions())
    return topic


class TestTails:
    """The negative binomial law of the module's docstring."""

    def test_worked_by_hand(self) -> None:
        """Nothing before, half as many documents now: mean 1/4, variance 3/8, so r = 1/2 and p = 2/3."""
        up, down = tails(Count(k1=1, n1=50, k0=0, n0=100))
        none = (2 / 3) ** 0.5
        assert up == pytest.approx(1 - none)
        assert down == pytest.approx(none + 0.5 * (1 / 3) * none)

    def test_bursts_make_it_careful(self) -> None:
        """The more topics vary from day to day, the more it takes."""
        count = Count(k1=9, n1=100, k0=20, n0=900)
        assert tails(count, 3.0)[0] > 5 * tails(count, 1.0)[0]

    def test_without_a_baseline_nothing_is_known(self) -> None:
        """At the start of a stream every topic is new."""
        assert tails(Count(k1=50, n1=100, k0=0, n0=0)) == (1.0, 1.0)

    @given(st.integers(0, 50), st.integers(1, 500), st.integers(0, 50), st.integers(1, 500))
    def test_both_tails_cover_everything(self, k1: int, n1: int, k0: int, n0: int) -> None:
        """They overlap in the observed count alone."""
        up, down = tails(Count(k1, n1, k0, n0))
        assert 0 <= up <= 1
        assert up + down >= 1 - 1e-9


class TestAdjusted:
    """Benjamini and Hochberg."""

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
    def test_never_smaller_than_p_and_in_the_same_order(self, values: list[float]) -> None:
        """And never above 1."""
        found = adjusted(values)
        assert all(p <= q + 1e-12 and q <= 1 for p, q in zip(values, found, strict=True))
        order = np.argsort(values, kind="stable")
        assert (np.diff(found[order]) >= -1e-12).all()


class TestDispersion:
    """How bursty the topics are."""

    def test_poisson_counts_give_one(self) -> None:
        """As the test assumes at least."""
        rng = np.random.default_rng(0)
        assert dispersion(rng.poisson(5, (200, 10)), np.full(10, 500)) == pytest.approx(1, abs=0.08)

    def test_bursts_give_more(self) -> None:
        """Three documents where one was counted: variance over mean 3."""
        rng = np.random.default_rng(0)
        assert dispersion(3 * rng.poisson(4, (200, 10)), np.full(10, 500)) == pytest.approx(3, abs=0.3)


class TestSignals:
    """Classes of a topic, by its days before the end."""

    @pytest.mark.parametrize(
        ("days", "signal"),
        [
            ({0: 12, 1: 0}, "strong"),
            ({0: 3}, "weak"),
            (dict.fromkeys(range(10), 5), "noise"),
            (dict.fromkeys(range(1, 10), 9), "fading"),
            ({0: 1}, "noise"),
        ],
    )
    def test_of_a_topic(self, days: dict[int, int], signal: str) -> None:
        """New and many; new and few; steady; gone; one document."""
        assert signal_of(days).signal == signal

    def test_one_outlets_series_is_at_most_weak(self) -> None:
        """Twelve parts of one paper's own story are no trend."""
        assert signal_of({0: 12}, outlet="daily").signal == "weak"

    def test_growth_is_a_ratio_of_shares(self) -> None:
        """10 of 30 now, 9 of 189 before, half a document added everywhere."""
        days = {0: 10, **dict.fromkeys(range(1, 10), 1)}
        assert signal_of(days).growth == pytest.approx((10.5 / 30.5) / (9.5 / 189.5), abs=1e-3)

    def test_the_baseline_outlives_the_window(self) -> None:
        """A topic that comes every week is no news: what the registry remembers counts."""
        documents, names = stream({0: 6}, "t")
        new, known = (Topic(id="t", label="", born=0, seen=0) for _ in range(2))
        known.history = {str(day): [12, 26] for day in range(3, 10)}
        classify([new], documents, names, END)
        classify([known], documents, names, END)
        assert (new.signal, known.signal) == ("strong", "noise")
        assert set(known.history) >= {"3", "9", "15"}

    def test_nothing_is_nan(self) -> None:
        """An empty window, and a topic without documents."""
        topic = Topic(id="t", label="", born=0, seen=0)
        classify([topic], [], [], END)
        assert math.isfinite(topic.growth)
        assert topic.signal == "noise"
