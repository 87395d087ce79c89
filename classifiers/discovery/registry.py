"""The registry of topics: what a refit finds is matched to what lived before, so that ids and names stay.

A refit numbers its clusters anew, and moves documents at their borders to and fro. So it only proposes:

1. Each cluster is compared with each known topic: centroid, vocabulary, and the documents that both hold.
   The assignment is one-to-one and the best in sum (Hungarian method); weak pairs are no pairs.
2. A cluster without a topic is **born** of the documents that no topic has; where they are too few, or most
   are one topic's (a **split**), three refits in a row must propose it.
3. A document keeps its topic until three refits in a row propose another one, to which it is nearer, or it is
   far from its own. One that no cluster holds joins the nearest topic, if that is near, and stays free for a
   birth.
4. A topic without a cluster, most of whose documents belong with another one in three refits in a row, is
   **merged** into it. One that has too few documents left in the window has **died**; it is remembered for a
   month, and what matches it later has it **revived** under its old id and name.

Everything is a value of plain types: JSON is all that a restart needs.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from classifiers.discovery.model import Described, Vectors, cosines
from classifiers.discovery.topic import Cluster, Event, Topic, label_of

__all__ = ["Registry"]

PATIENCE = 3
"""So many refits in a row must say the same before a document moves or a topic splits or merges."""
MATCH_MIN = 0.35
REVIVE_MIN = 0.6
STAY_MIN = 0.2
JOIN_MIN = 0.3
"""Cosine from which on a document without a cluster joins the nearest topic."""
MEMBERS_MIN = 3
MEMBERS_MAX = 300
EXAMPLE_CHARACTERS = 300
REMEMBERED_SECONDS = 30 * 86400.0


@dataclass(slots=True)
class _Refit:
    """One refit on its way through the registry."""

    ids: Sequence[str]
    vectors: Vectors
    clusters: Sequence[Cluster]
    now: float
    before: list[str]
    """Topic of each document until now; empty for none."""
    center: NDArray[np.float32]
    events: list[Event] = field(default_factory=list)
    newborn: set[str] = field(default_factory=set)
    ripe: set[str] = field(default_factory=set)
    """Newborn topics that waited: they take all of their documents at once."""

    def tell(self, kind: str, topic: str, other: str = "") -> None:
        self.events.append(Event(kind, topic, self.now, other))  # type: ignore[arg-type]


class Registry:
    """Topics that live or are remembered, and which document belongs to which.

    Parameters
    ----------
    topics : sequence of Topic
        As they were published last; empty for a new registry.

    Attributes
    ----------
    topics : dict of str to Topic
    assigned : dict of str to str
        Topic id by document id, for the documents of the window.
    core : dict of str to str
        The same without the documents that the last refit left out of their topic's cluster: what growth is
        counted by. A topic that has no cluster keeps all of its documents.
    """

    def __init__(self, topics: Sequence[Topic] = ()) -> None:
        self.topics = {topic.id: topic for topic in topics}
        self.assigned = {
            member: topic.id for topic in topics if topic.state == "living" for member in topic.members
        }
        self.core = dict(self.assigned)
        self._doubts: Counter[str] = Counter()
        """By document: how many refits in a row proposed another topic than its own."""
        self._loose: set[str] = set()
        """Documents that joined the nearest topic, and were in no cluster of it since."""
        self._leaving: dict[str, tuple[str, int]] = {}
        """By topic without a cluster: where most of its documents were proposed to go, how often in a row."""

    @property
    def living(self) -> list[Topic]:
        """Topics that have documents."""
        return [topic for topic in self.topics.values() if topic.state == "living"]

    def assign(
        self, ids: Sequence[str], vectors: Vectors, clusters: Sequence[Cluster], now: float
    ) -> tuple[list[str], list[Event]]:
        """Take the proposals of a refit.

        Parameters
        ----------
        ids : sequence of str
            Of the window's distinct documents.
        vectors : ndarray of shape (n_documents, n_dimensions)
        clusters : sequence of Cluster
        now : float
            Event time.

        Returns
        -------
        assigned : list of str
            Topic id of each document; empty for none.
        events : list of Event
        """
        before = [self.assigned.get(id_, "") for id_ in ids]
        center = vectors.mean(axis=0) if len(vectors) else np.zeros(1, dtype=np.float32)
        refit = _Refit(ids, vectors, clusters, now, before, center)
        matched = self._match(refit)
        proposed = [""] * len(ids)
        for name, cluster in zip(matched, clusters, strict=True):
            for at in cluster.members:
                proposed[at] = name
        assigned = self._move(refit, proposed)
        assigned = self._merge(refit, assigned, proposed, set(matched))
        assigned = self._join(refit, assigned)
        assigned = self._bury(refit, assigned)
        self.assigned = {id_: name for id_, name in zip(ids, assigned, strict=True) if name}
        self.core = self._core(ids, proposed)
        self._doubts = Counter({id_: self._doubts[id_] for id_ in self.assigned if self._doubts[id_]})
        self._loose &= set(self.assigned)
        return assigned, refit.events

    def describe(
        self,
        documents: Sequence[tuple[str, str]],
        vectors: Vectors,
        assigned: Sequence[str],
        described: Mapping[str, Described],
        now: float,
    ) -> list[Event]:
        """Renew the content of the living topics by the documents that they have now.

        Parameters
        ----------
        documents : sequence of tuple
            Id and text of each.
        vectors : ndarray of shape (n_documents, n_dimensions)
        assigned : sequence of str
            As :meth:`assign` gave it.
        described : mapping
            Words by topic id.
        now : float
        """
        own = np.asarray(assigned, dtype=object)
        events = []
        for topic in self.living:
            members = np.flatnonzero(own == topic.id)
            if not len(members):
                continue
            topic.centroid = [round(float(x), 4) for x in vectors[members].mean(axis=0)]
            topic.members = [documents[at][0] for at in members[-MEMBERS_MAX:]]
            topic.documents, topic.seen = len(members), now
            if (found := described.get(topic.id)) is None or not found.words:
                continue
            topic.words, topic.weights = found.words, found.weights
            topic.examples = [
                [documents[at][0], documents[at][1][:EXAMPLE_CHARACTERS]] for at in found.representatives
            ]
            if not any(word in topic.words for word in topic.label.split(", ")):
                topic.label = label_of(topic.words)
                events.append(Event("renamed", topic.id, now))
        return events

    def forget(self, now: float) -> list[str]:
        """Drop what ended a month ago; gives the ids."""
        gone = [
            topic.id
            for topic in self.topics.values()
            if topic.state != "living" and now - topic.seen > REMEMBERED_SECONDS
        ]
        for name in gone:
            del self.topics[name]
        return gone

    # match

    def _match(self, refit: _Refit) -> list[str]:
        """Of each cluster: the id of its topic, old or newborn; ``?id`` for a split that is not ripe."""
        from scipy.optimize import linear_sum_assignment  # noqa: PLC0415 - keeps the start of commands fast

        known = [topic for topic in self.topics.values() if topic.state != "merged" and topic.centroid]
        names = [""] * len(refit.clusters)
        if known and refit.clusters:
            scores = self._similarity(known, refit)
            for row, column in zip(*linear_sum_assignment(-scores), strict=True):
                topic = known[row]
                if scores[row, column] < (MATCH_MIN if topic.state == "living" else REVIVE_MIN):
                    continue
                names[column] = topic.id
                if topic.state == "died":
                    topic.state, topic.other = "living", ""
                    refit.tell("revived", topic.id)
        return [
            name or self._newborn(refit, cluster) for name, cluster in zip(names, refit.clusters, strict=True)
        ]

    @staticmethod
    def _similarity(known: Sequence[Topic], refit: _Refit) -> NDArray[np.float64]:
        """Mean of content (centroid and vocabulary) and shared documents; content alone where none is known.

        Shape (n_topics, n_clusters), 0 to 1.
        """
        own = np.asarray([topic.centroid for topic in known], dtype=np.float32)
        found = np.stack([refit.vectors[cluster.members].mean(axis=0) for cluster in refit.clusters])
        content = np.maximum(cosines(own, found, refit.center), 0).astype(np.float64)
        shared = np.zeros_like(content)
        sizes = Counter(refit.before)
        for column, cluster in enumerate(refit.clusters):
            held = Counter(refit.before[at] for at in cluster.members)
            seen = sum(held.values()) - held[""]
            for row, topic in enumerate(known):
                words = sum(weight * cluster.weights.get(word, 0.0) for word, weight in topic.weights.items())
                content[row, column] = (content[row, column] + words) / 2
                shared[row, column] = 2 * held[topic.id] / max(1, sizes[topic.id] + seen)
        remembered = np.asarray([sizes[topic.id] > 0 for topic in known])[:, None]
        return np.where(remembered, (content + shared) / 2, content)

    def _newborn(self, refit: _Refit, cluster: Cluster) -> str:
        bound = [at for at in cluster.members if refit.before[at] and refit.ids[at] not in self._loose]
        homes = Counter(refit.before[at] for at in bound).most_common(1)
        is_split = bool(homes) and homes[0][1] > len(cluster.members) / 2
        home = homes[0][0] if is_split else ""
        waits = bool(bound) and (is_split or len(cluster.members) - len(bound) < MEMBERS_MIN)
        if waits and float(np.median([self._doubts[refit.ids[at]] for at in bound])) < PATIENCE - 1:
            return f"?{home}"
        name = self._new_id(cluster, refit.now)
        refit.newborn.add(name)
        if waits:
            refit.ripe.add(name)
        self.topics[name] = Topic(
            id=name,
            label=label_of(cluster.words),
            born=refit.now,
            seen=refit.now,
            words=cluster.words,
            weights=cluster.weights,
            other=home,
        )
        refit.tell("split" if is_split else "born", name, home)
        return name

    def _new_id(self, cluster: Cluster, now: float) -> str:
        name, salt = "", 0
        while not name or name in self.topics:
            key = f"{now:.0f} {' '.join(cluster.words)} {salt}"
            name, salt = f"e{hashlib.sha256(key.encode()).hexdigest()[:8]}", salt + 1
        return name

    # move

    def _move(self, refit: _Refit, proposed: Sequence[str]) -> list[str]:
        """Topic of each document: the proposed one, or its own while the proposal is in doubt."""
        assigned = []
        strange, nearer = self._strange(refit), self._nearer(refit)
        for at, (id_, own, name) in enumerate(zip(refit.ids, refit.before, proposed, strict=True)):
            wanted = name.removeprefix("?")
            is_free = name in refit.ripe or (name in refit.newborn and id_ in self._loose)
            if not own or own == name or is_free:
                self._doubts.pop(id_, None)
                self._loose.discard(id_)
                assigned.append(wanted)
                continue
            if not name:
                assigned.append("" if strange[at] else own)
                continue
            self._doubts[id_] += 1
            moves = self._doubts[id_] >= PATIENCE and wanted not in {own, ""} and nearer[at]
            if moves:
                self._doubts.pop(id_)
                self._loose.discard(id_)
            assigned.append(wanted if moves else own)
        return assigned

    def _strange(self, refit: _Refit) -> NDArray[np.bool_]:
        """Which documents are far from the topic that they had."""
        out = np.zeros(len(refit.ids), dtype=bool)
        own = np.asarray(refit.before, dtype=object)
        for topic in self.living:
            members = np.flatnonzero(own == topic.id)
            if len(members) and topic.centroid:
                middle = np.asarray([topic.centroid], dtype=np.float32)
                out[members] = cosines(refit.vectors[members], middle, refit.center).ravel() < STAY_MIN
        return out

    def _nearer(self, refit: _Refit) -> NDArray[np.bool_]:
        """Which documents are nearer to the cluster that they are in than to the topic that they had."""
        out = np.zeros(len(refit.ids), dtype=bool)
        own = np.asarray(refit.before, dtype=object)
        for cluster in refit.clusters:
            members = np.asarray(cluster.members)
            middle = refit.vectors[members].mean(axis=0, keepdims=True)
            new = cosines(refit.vectors[members], middle, refit.center).ravel()
            for name in {*own[members].tolist()} - {""}:
                of = members[own[members] == name]
                old = np.asarray([self.topics[name].centroid], dtype=np.float32)
                out[of] = new[own[members] == name] > cosines(refit.vectors[of], old, refit.center).ravel()
        return out

    def _merge(
        self, refit: _Refit, assigned: Sequence[str], proposed: Sequence[str], matched: set[str]
    ) -> list[str]:
        """End the topics without a cluster, most of whose documents belong with one other topic."""
        into: dict[str, str] = {}
        goes: dict[str, Counter[str]] = {}
        for own, name in zip(refit.before, proposed, strict=True):
            if own and own not in matched:
                goes.setdefault(own, Counter())[name.removeprefix("?")] += 1
        leaving, self._leaving = self._leaving, {}
        for own, targets in goes.items():
            target, count = targets.most_common(1)[0]
            if target in {"", own} or count <= sum(targets.values()) / 2:
                continue
            before, times = leaving.get(own, ("", 0))
            times = times + 1 if before == target else 1
            if times < PATIENCE:
                self._leaving[own] = target, times
                continue
            into[own] = target
            self.topics[own].state, self.topics[own].other = "merged", target
            self.topics[own].documents, self.topics[own].members = 0, []
            refit.tell("merged", own, target)
        return [into.get(name, name) for name in assigned]

    def _join(self, refit: _Refit, assigned: Sequence[str]) -> list[str]:
        """Give the documents that are in no cluster and had no topic to the nearest one, where it is near."""
        own = np.asarray(assigned, dtype=object)
        names = sorted({*assigned} - {""})
        alone = np.flatnonzero([not new and not old for new, old in zip(assigned, refit.before, strict=True)])
        if not names or not len(alone):
            return list(assigned)
        middles = np.stack([refit.vectors[own == name].mean(axis=0) for name in names])
        for at, near in zip(alone, cosines(refit.vectors[alone], middles, refit.center), strict=True):
            if near.max() >= JOIN_MIN:
                own[at] = names[int(near.argmax())]
                self._loose.add(refit.ids[int(at)])
        return [str(name) for name in own]

    def _core(self, ids: Sequence[str], proposed: Sequence[str]) -> dict[str, str]:
        """Leave out what stays with its topic only because documents move slowly.

        A new theme may get the id of an old topic, whose other documents stay where they are: counted as its
        past, they would hide its growth.
        """
        held = {id_: name.removeprefix("?") for id_, name in zip(ids, proposed, strict=True)}
        clustered = {*held.values()}
        return {id_: own for id_, own in self.assigned.items() if own == held[id_] or own not in clustered}

    def _bury(self, refit: _Refit, assigned: Sequence[str]) -> list[str]:
        """End the topics that have too few documents left."""
        counts = Counter(assigned)
        dead = [topic for topic in self.living if counts[topic.id] < MEMBERS_MIN]
        for topic in dead:
            topic.state, topic.documents, topic.members = "died", 0, []
            refit.tell("died", topic.id)
        gone = {topic.id for topic in dead}
        return ["" if name in gone else name for name in assigned]
