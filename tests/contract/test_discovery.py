"""BERTopic on windows of headlines: written ones with a planted theme, real ones where they are at hand."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks.discovery_data import DATED, dated
from classifiers.discovery.charts import write_charts
from classifiers.discovery.model import TopicModel, embed
from classifiers.discovery.pipeline import Refit, refit
from classifiers.discovery.registry import Registry
from classifiers.discovery.window import Document, slide
from stream.discover_window import document_of
from stream.schema import Event, encode
from tests.conftest import ROOT
from tests.headlines import DAY, END, RISING, STEADY, rising, steady, wire


def documents(events: list[Event]) -> list[Document]:
    """As the window holds them."""
    found = [document_of(encode(event)) for event in events]
    return sorted((d for d in found if d is not None), key=lambda d: (d.time, d.id))


@pytest.fixture(scope="module")
def looked() -> tuple[Registry, Refit]:
    """One look at four steady themes, a rising one and a wire story."""
    registry = Registry()
    return registry, refit(registry, documents([*steady(), *rising(), *wire()]), END)


class TestPlanted:
    """What was written into the window is found in it."""

    def test_the_rising_theme_is_the_one_strong_signal(self, looked: tuple[Registry, Refit]) -> None:
        """Thirty copies of a story are none."""
        registry, result = looked
        (strong,) = [topic for topic in registry.living if topic.signal == "strong"]
        own = Counter(id_.split("-")[0] for id_ in strong.members)
        assert own["moon"] >= 10
        assert own.total() - own["moon"] <= 2
        assert {"lunar", "moon", "lander"} & set(strong.words)
        assert strong.growth > 5
        assert result.copies == 29

    def test_themes_are_apart(self, looked: tuple[Registry, Refit]) -> None:
        """Of each topic, nearly all documents are of one theme; and nearly all themes are covered."""
        registry, _ = looked
        by_topic = {t.id: Counter(id_.split("-")[0] for id_ in t.members) for t in registry.living}
        pure = sum(max(themes.values()) for themes in by_topic.values())
        assert pure >= 0.85 * sum(sum(themes.values()) for themes in by_topic.values())
        assert set(STEADY) | {"moon"} <= {max(t, key=t.__getitem__) for t in by_topic.values()}
        assert len(registry.living) >= 5

    def test_the_same_window_gives_the_same_topics(self, looked: tuple[Registry, Refit]) -> None:
        """Every random step has a seed."""
        _, before = looked
        again = refit(Registry(), documents([*steady(), *rising(), *wire()]), END)
        assert again.assigned == before.assigned

    def test_a_later_window_keeps_the_ids(self, looked: tuple[Registry, Refit]) -> None:
        """Half a day later, two days shorter: what is in both has its id, but for a few."""
        _, before = looked
        registry = Registry(looked[0].living)
        window = [d for d in documents([*steady(), *rising()]) if d.time > END - 5 * DAY]
        after = refit(registry, window, END + DAY / 2).assigned
        shared = [d.id for d in window if d.id in before.assigned]
        assert np.mean([before.assigned[id_] == after.get(id_) for id_ in shared]) >= 0.9

    def test_charts_are_one_file(self, looked: tuple[Registry, Refit], tmp_path: Path) -> None:
        """With the plotting library inside, so that it opens without a network."""
        file = tmp_path / "charts.html"
        assert {"words", "documents"} <= set(write_charts(looked[1].model, file))
        page = file.read_text()
        assert page.count("<html") == 1
        assert "Plotly.newPlot" in page
        assert 'src="http' not in page


class TestModel:
    """The estimator's own edges."""

    def test_warning_filters_stay_as_they_were(self, looked: tuple[Registry, Refit]) -> None:
        """BERTopic's import adds filters that silence the process; ours gives them back."""
        assert looked[1].model.model_ is not None
        with pytest.warns(UserWarning, match="still heard"):
            warnings.warn("still heard", UserWarning, stacklevel=1)
        assert not [f for f in warnings.filters if f[0] == "ignore" and f[2] is UserWarning and f[1] is None]

    @pytest.mark.parametrize("texts", [[], ["one headline"], ["", " ", "!?"] * 6, ["same words here"] * 30])
    def test_windows_without_topics_do_not_raise(self, texts: list[str]) -> None:
        """Too few, no words, all alike."""
        window = [Document(f"{n}", END - n, text) for n, text in enumerate(texts)]
        result = refit(Registry(), window[::-1], END)
        assert [topic for topic in result.topics if topic.signal == "strong"] == []

    def test_vectors_have_length_one_or_nothing(self) -> None:
        """An empty text has no direction."""
        vectors = embed([*RISING, ""])
        assert np.linalg.norm(vectors, axis=1).round(5).tolist() == [1.0] * len(RISING) + [0.0]

    def test_labels_are_of_the_texts(self) -> None:
        """One for each, -1 for none."""
        texts = [event.title for event in steady()]
        model = TopicModel().fit(texts, embed(texts))
        assert len(model.labels_) == len(texts)
        assert model.labels_.min() >= -1
        assert set(model.describe(model.labels_)) == set(model.labels_.tolist()) - {-1}


def test_on_real_headlines() -> None:
    """Three weeks of real ones with the planted theme: it is a signal, and few others are strong."""
    folder = Path(os.environ.get("STANCEWATCH_TEXTS", ROOT.parent / "shared" / "data"))
    real = dated(folder)
    if not real:
        pytest.skip(f"needs {DATED}, which is not part of the project: STANCEWATCH_TEXTS names its parent")
    end = real[-1].time - 5 * DAY
    shift = end - END
    planted = [Document(d.id, d.time + shift, d.text, d.source) for d in documents(rising())]
    registry = Registry()
    result = refit(registry, slide([*real, *planted], end=end, hours=24 * 21, count=3000), end)
    of_theme = Counter(result.assigned.get(d.id, "") for d in planted)
    name, held = of_theme.most_common(1)[0]
    assert held >= 0.6 * len(planted)
    assert registry.topics[name].signal in {"weak", "strong"}
    assert sum(topic.signal == "strong" for topic in registry.living) <= 5
