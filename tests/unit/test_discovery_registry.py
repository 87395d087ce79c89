"""Ids and names stay while a theme lives; births, splits, merges and deaths are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifiers.discovery.model import Described
from classifiers.discovery.registry import REMEMBERED_SECONDS, Registry
from classifiers.discovery.topic import Cluster, Event, Topic, label_of

THEMES = {
    name: np.eye(8, dtype=np.float32)[at]
    for at, name in enumerate(("moon", "court", "storm", "soup", "misc"))
}


class World:
    """Documents around themes, and refits that propose groups of them."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.now = 0.0

    def refit(self, groups: Mapping[str, Sequence[str]], loose: Sequence[str] = ()) -> list[Event]:
        """One refit: clusters by name, the theme is the name's first part, and documents without a cluster.

        A document is named ``theme:number``.
        """
        self.now += 3600
        ids = [*(id_ for members in groups.values() for id_ in members), *loose]
        rng = np.random.default_rng(0)
        vectors = np.stack([THEMES[id_.split(":")[0]] for id_ in ids])
        vectors = (vectors + rng.normal(0, 0.05, vectors.shape)).astype(np.float32)
        place = {id_: at for at, id_ in enumerate(ids)}
        clusters = [
            Cluster([place[id_] for id_ in members], weights(name), words(name))
            for name, members in groups.items()
        ]
        assigned, events = self.registry.assign(ids, vectors, clusters, self.now)
        described = {}
        for topic in self.registry.living:
            own = [id_ for id_, name in zip(ids, assigned, strict=True) if name == topic.id]
            theme = max({i.split(":")[0] for i in own}, key=[i.split(":")[0] for i in own].count)
            described[topic.id] = Described(weights(theme), words(theme), [0])
        documents = [(id_, f"text of {id_}") for id_ in ids]
        return events + self.registry.describe(documents, vectors, assigned, described, self.now)

    def topic(self, id_: str) -> str:
        """Topic of a document; empty for none."""
        return self.registry.assigned.get(id_, "")

    def restart(self) -> None:
        """Only JSON is left."""
        known = msgspec.json.encode(list(self.registry.topics.values()))
        self.registry = Registry(msgspec.json.decode(known, type=list[Topic]))


def words(name: str) -> list[str]:
    """Ten words of a theme."""
    return [f"{name.split('/', maxsplit=1)[0]}{letter}" for letter in "abcdefghij"]


def weights(name: str) -> dict[str, float]:
    """The same as a vocabulary of length 1."""
    return dict.fromkeys(words(name), 10**-0.5)


def docs(theme: str, start: int, end: int) -> list[str]:
    """``theme:start`` up to, not including, ``theme:end``."""
    return [f"{theme}:{n}" for n in range(start, end)]


@pytest.fixture
def world() -> World:
    """Two themes, looked at once."""
    world = World()
    world.refit({"moon": docs("moon", 0, 8), "court": docs("court", 0, 6)})
    return world


class TestIdentity:
    """A theme keeps its id."""

    def test_the_next_refit_numbers_anew_and_the_ids_stay(self, world: World) -> None:
        """Other order, other documents, some gone: the same topics."""
        moon, court = world.topic("moon:7"), world.topic("court:5")
        assert moon != court
        assert world.refit({"court": docs("court", 3, 9), "moon": docs("moon", 4, 15)}) == []
        assert (world.topic("moon:14"), world.topic("court:8")) == (moon, court)

    def test_a_topic_is_known_by_its_content_alone(self, world: World) -> None:
        """No document of before is left in the window."""
        moon = world.topic("moon:0")
        world.refit({"moon": docs("moon", 20, 28)})
        assert world.topic("moon:20") == moon

    def test_a_restart_changes_nothing(self, world: World) -> None:
        """Ids, names and documents come back from JSON."""
        before, labels = dict(world.registry.assigned), {t.label for t in world.registry.living}
        world.restart()
        assert world.registry.assigned == before
        assert world.refit({"court": docs("court", 0, 6), "moon": docs("moon", 0, 9)}) == []
        assert {topic.label for topic in world.registry.living} == labels

    def test_another_theme_gets_another_id(self, world: World) -> None:
        """And is a birth."""
        old = {topic.id for topic in world.registry.living}
        events = world.refit(
            {"moon": docs("moon", 0, 8), "court": docs("court", 0, 6), "storm": docs("storm", 0, 5)}
        )
        assert [event.kind for event in events] == ["born"]
        assert world.topic("storm:0") not in old

    def test_the_name_stays_while_a_word_of_it_does(self, world: World) -> None:
        """Then the topic is renamed, not replaced."""
        (topic,) = (t for t in world.registry.living if t.id == world.topic("moon:0"))
        assert topic.label == "moona, moonb, moonc"
        topic.label = "moonj, dust, crater"
        assert world.refit({"moon": docs("moon", 0, 8)}, docs("court", 0, 6)) == []
        assert topic.label == "moonj, dust, crater"
        topic.label = "dust, crater"
        events = world.refit({"moon": docs("moon", 0, 8)}, docs("court", 0, 6))
        assert [event.kind for event in events] == ["renamed"]
        assert topic.label == "moona, moonb, moonc"


class TestDocuments:
    """A document moves when three refits in a row say so, and it is nearer there."""

    def test_a_border_case_does_not_jump(self, world: World) -> None:
        """Two proposals are not enough, and a contrary one clears them."""
        back = {"moon": [*docs("moon", 0, 8), "court:9"], "court": docs("court", 0, 6)}
        there = {"moon": docs("moon", 0, 8), "court": [*docs("court", 0, 6), "court:9"]}
        for groups in (back, there, there, back, there, there):
            world.refit(groups)
            assert world.topic("court:9") == world.topic("moon:7")
        world.refit(there)
        assert world.topic("court:9") == world.topic("court:0")

    def test_a_document_stays_where_it_is_nearer(self, world: World) -> None:
        """However often a cluster of another topic holds it."""
        moon = world.topic("moon:7")
        for _ in range(5):
            world.refit({"moon": docs("moon", 0, 7), "court": [*docs("court", 0, 6), "moon:7"]})
            assert world.topic("moon:7") == moon

    def test_a_new_outlier_joins_the_nearest_topic(self, world: World) -> None:
        """Where one is near; a restart forgets that it joined only so, and nothing else."""
        groups = {"moon": docs("moon", 0, 8), "court": docs("court", 0, 6)}
        for _ in range(2):
            assert world.refit(groups, ["moon:8", "storm:0"]) == []
            assert (world.topic("moon:8"), world.topic("storm:0")) == (world.topic("moon:0"), "")
            world.restart()

    def test_an_outlier_stays_where_it_belongs(self, world: World) -> None:
        """Unless it is far from its topic."""
        moon = world.topic("moon:0")
        world.refit({"moon": [*docs("moon", 0, 8), "misc:0"], "court": docs("court", 0, 6)})
        assert world.topic("misc:0") == moon
        world.refit({"moon": docs("moon", 0, 7), "court": docs("court", 0, 6)}, ["moon:7", "misc:0"])
        assert (world.topic("moon:7"), world.topic("misc:0")) == (moon, "")

    def test_what_a_cluster_leaves_out_is_not_its_core(self, world: World) -> None:
        """Though it stays with its topic; what joined is not in it until a cluster holds it."""
        court = {id_: world.topic(id_) for id_ in docs("court", 0, 6)}
        moon = {id_: world.topic(id_) for id_ in docs("moon", 0, 8)}
        assert world.registry.core == world.registry.assigned == {**moon, **court}
        world.refit(
            {"moon": docs("moon", 0, 4), "court": [*docs("court", 0, 6), "moon:4"]}, docs("moon", 5, 9)
        )
        assert {world.topic(id_) for id_ in docs("moon", 0, 9)} == {moon["moon:0"]}
        assert world.registry.core == {**{id_: moon[id_] for id_ in docs("moon", 0, 4)}, **court}

    def test_a_topic_without_a_cluster_is_all_core(self, world: World) -> None:
        """A refit that missed it knows no better; nor does a restart."""
        groups, outliers = {"court": docs("court", 0, 6)}, docs("moon", 0, 8)
        world.refit(groups, outliers)
        assert world.registry.core == world.registry.assigned
        assert len(world.registry.core) == 14
        world.restart()
        assert world.registry.core == world.registry.assigned


class TestLife:
    """What begins and ends."""

    def test_joined_documents_are_free_for_a_birth(self, world: World) -> None:
        """A theme that came as outliers does not wait for three refits; bound documents stay at first."""
        groups = {"moon": docs("moon", 0, 8), "court": docs("court", 0, 6)}
        moon = world.topic("moon:0")
        world.refit(groups, docs("moon", 20, 24))
        assert world.topic("moon:20") == moon
        groups["moon/2"] = [*docs("moon", 20, 24), "moon:7"]
        groups["moon"] = docs("moon", 0, 7)
        (event,) = world.refit(groups)
        assert (event.kind, event.other) == ("born", "")
        assert world.topic("moon:20") == world.topic("moon:23") == event.topic
        assert world.topic("moon:7") == moon

    def test_too_few_free_documents_wait(self, world: World) -> None:
        """A cluster of two topics' documents is no birth until three refits proposed it."""
        moon, court = world.topic("moon:0"), world.topic("court:0")
        mixed = {
            "moon": docs("moon", 0, 6),
            "court": docs("court", 0, 4),
            "soup": [*docs("moon", 6, 8), *docs("court", 4, 6), *docs("soup", 0, 2)],
        }
        for _ in range(2):
            assert world.refit(mixed) == []
            assert (world.topic("moon:7"), world.topic("court:5")) == (moon, court)
        (event,) = [event for event in world.refit(mixed) if event.kind != "renamed"]
        assert (event.kind, event.other) == ("born", "")
        assert world.topic("moon:7") == world.topic("court:5") == world.topic("soup:0") == event.topic

    def test_a_split_waits_for_a_third_refit(self, world: World) -> None:
        """Then the smaller part is a topic with a parent."""
        moon = world.topic("moon:0")
        parts = {
            "moon": docs("moon", 0, 5),
            "moon/2": docs("moon", 5, 8),
            "court": docs("court", 0, 6),
        }
        for _ in range(2):
            assert world.refit(parts) == []
            assert world.topic("moon:6") == moon
        (event,) = world.refit(parts)
        assert (event.kind, event.other) == ("split", moon)
        assert world.topic("moon:6") == event.topic != moon

    def test_a_merge_ends_the_smaller_topic(self) -> None:
        """Two strands become one cluster, three times in a row."""
        world = World()
        world.refit({"moon": docs("moon", 0, 8), "storm": docs("storm", 0, 4)})
        big, small = world.topic("moon:0"), world.topic("storm:0")
        both = {"moon": [*docs("moon", 0, 8), *docs("storm", 0, 4)]}
        apart = {"moon": docs("moon", 0, 8), "storm": docs("storm", 0, 4)}
        for groups in (both, both, apart, both, both):
            assert [event.kind for event in world.refit(groups)] == []
            assert world.topic("storm:3") == small
        (event,) = world.refit(both)
        assert (event.kind, event.topic, event.other) == ("merged", small, big)
        assert world.topic("storm:3") == big
        assert world.registry.topics[small].state == "merged"

    def test_a_topic_dies_with_its_last_documents_and_revives(self, world: World) -> None:
        """Under its old id and name."""
        moon = world.topic("moon:0")
        events = world.refit({"court": docs("court", 0, 6)}, docs("moon", 6, 8))
        assert [(event.kind, event.topic) for event in events] == [("died", moon)]
        assert world.topic("moon:7") == ""
        world.restart()
        events = world.refit({"court": docs("court", 0, 6), "moon": docs("moon", 50, 58)})
        assert [(event.kind, event.topic) for event in events] == [("revived", moon)]

    def test_the_dead_are_forgotten_after_a_month(self, world: World) -> None:
        """The living are not."""
        moon = world.topic("moon:0")
        world.refit({"court": docs("court", 0, 6)}, ["moon:1"])
        assert world.registry.forget(world.now) == []
        later = world.now + REMEMBERED_SECONDS + 7200
        assert world.registry.forget(later) == [moon]
        assert len(world.registry.topics) == 1

    @settings(max_examples=40)
    @given(st.data())
    def test_whatever_refits_propose_the_books_balance(self, data: st.DataObject) -> None:
        """Documents belong to living topics, ids are never used for two, counts add up."""
        world = World()
        every = [id_ for theme in ("moon", "court", "storm") for id_ in docs(theme, 0, 8)]
        born: list[str] = []
        for _ in range(data.draw(st.integers(1, 6))):
            present = data.draw(st.lists(st.sampled_from(every), min_size=1, unique=True))
            cut = data.draw(st.lists(st.integers(-1, 3), min_size=len(present), max_size=len(present)))
            groups = {
                f"{['moon', 'court', 'storm', 'soup'][n]}": [
                    i for i, c in zip(present, cut, strict=True) if c == n
                ]
                for n in range(4)
            }
            groups = {name: members for name, members in groups.items() if members}
            loose = [id_ for id_, c in zip(present, cut, strict=True) if c < 0]
            events = world.refit(groups, loose)
            born += [event.topic for event in events if event.kind in {"born", "split"}]
            living = {topic.id: topic for topic in world.registry.living}
            assert set(world.registry.assigned.values()) == set(living)
            assert set(world.registry.assigned) <= set(present)
            assert sum(topic.documents for topic in living.values()) == len(world.registry.assigned)
        assert len(born) == len(set(born))


def test_labels_do_not_repeat_themselves() -> None:
    """Of "chip" and "chips" one is enough."""
    assert label_of(["chips", "chip", "export", "curbs", "china"]) == "chips, export, curbs"
