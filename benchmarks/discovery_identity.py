"""Do ids stay? The registry beside BERTopic's own three ways, on windows that overlap.

Part of ``benchmarks.discovery``. All see the same windows without copies, and the same fit of each. Several
chains of windows, each begun anew; the chain is the unit of the standard errors, since the windows of one
depend on each other.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.discovery_data import WINDOW_DAYS, agreement, coherence, day, distinct, diversity
from classifiers.discovery.model import TopicModel, cosines, quiet_import
from classifiers.discovery.pipeline import refit
from classifiers.discovery.registry import MEMBERS_MIN, Registry
from classifiers.discovery.signals import DAY
from classifiers.discovery.window import Document, slide

NAMES = ("registry", "merge_models", "merge_models, topics_", "plain refits", "partial_fit")
MEASURES = ("kept", "ami", "fresh", "covered", "topics", "coherence", "diversity")
HEADS = ("same id", "AMI", "AMI with the fresh fit", "with a topic", "topics", "C_NPMI", "diversity")
WORDS = 10
Table = dict[str, dict[str, float]]


def identity(documents: Sequence[Document], ends: Sequence[str], steps: int, jobs: int) -> None:
    """Chains of `steps` windows, a day apart; the first window of each ends on one of `ends`."""
    print(f"\n## identity: {len(ends)} chains of {steps} windows of {WINDOW_DAYS} days, a day apart\n")
    print(f"First windows end on {', '.join(ends)}.\n", flush=True)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        chains = []
        for end, chain in zip(ends, pool.map(partial(_chain, documents, steps), ends), strict=True):
            chains.append(chain)
            own = "; ".join(f"{name} {of['kept']:.3f}, {of['ami']:.3f}" for name, of in chain.items())
            print(f"- {end}: same id and AMI of {own}", flush=True)
    print(f"\n| | {' | '.join(HEADS)} |\n{'|---' * (len(HEADS) + 1)}|")
    for name in NAMES:
        print(f"| {name} | {' | '.join(_mean([chain[name][key] for chain in chains]) for key in MEASURES)} |")
    print("\nRegistry minus the other, mean of the chains ± standard error:\n")
    print(f"| | {' | '.join(HEADS)} |\n{'|---' * (len(HEADS) + 1)}|")
    for name in NAMES[1:]:
        apart = [[chain["registry"][key] - chain[name][key] for chain in chains] for key in MEASURES]
        print(f"| {name} | {' | '.join(_mean(values, sign='+') for values in apart)} |", flush=True)


def _mean(values: Sequence[float], sign: str = "") -> str:
    if not np.isfinite(values).all():
        return ""
    mean, digits = float(np.mean(values)), 1 if max(map(abs, values)) > 2 else 3  # noqa: PLR2004 - counts
    error = float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")
    return f"{mean:{sign}.{digits}f} ± {error:.{digits}f}"


def _chain(documents: Sequence[Document], steps: int, end: str) -> Table:
    """Means over the pairs of neighbouring windows; topics of three documents or more in the last one.

    Coherence by all documents: in so small a window, the words of a topic of three always meet.
    """
    history: dict[str, list[dict[str, str]]] = {name: [] for name in NAMES}
    fresh: dict[str, list[float]] = {name: [] for name in NAMES}
    registry, merged, online, seen = Registry(), None, Online(), set[str]()
    for step in range(steps):
        now = day(end) + step * DAY
        window = distinct(slide(documents, end=now, hours=24 * WINDOW_DAYS, count=5000))
        result = refit(registry, window, now)
        ids, vectors = [document.id for document in window], result.model.vectors_
        model = TopicModel().fit(result.model.texts_, vectors)  # that of the registry has other topics by now
        new = [at for at, id_ in enumerate(ids) if id_ not in seen]
        seen.update(ids)
        with quiet_import():
            merged, own, near = _merged(merged, model, vectors)
            online.learn(vectors[new])
        found = {
            "registry": {id_: result.assigned.get(id_, "") for id_ in ids},
            "merge_models": _named(ids, near),
            "merge_models, topics_": _named(ids, own),
            "plain refits": _named(ids, model.labels_),
            "partial_fit": _named(ids, online.predict(vectors)),
        }
        clear = {id_: topic for id_, topic in found["plain refits"].items() if topic}
        for name, of in found.items():
            history[name].append(of)
            fresh[name].append(agreement(clear, of)["ami"])
        print(f"{end}: window {step + 1} of {steps}, {len(ids)} headlines", file=sys.stderr, flush=True)
    table: Table = {}
    for name, windows in history.items():
        pairs = [agreement(*pair) for pair in pairwise(windows)]
        last = [windows[-1][id_] for id_ in ids]
        held = Counter(last)
        words = _words(model, [topic if held[topic] >= MEMBERS_MIN else "" for topic in last])
        table[name] = {
            **{key: float(np.mean([pair[key] for pair in pairs])) for key in pairs[0]},
            "fresh": float(np.mean(fresh[name])),
            "topics": len(words),
            "coherence": coherence(words, [document.text for document in documents]),
            "diversity": diversity(words),
        }
    return table


def _named(ids: Sequence[str], labels: Sequence[int] | NDArray[np.intp]) -> dict[str, str]:
    return {id_: "" if label < 0 else str(label) for id_, label in zip(ids, labels, strict=True)}


def _words(model: TopicModel, topics: Sequence[str]) -> list[list[str]]:
    """Ten words of each topic, by this assignment of the documents, whichever way it came about."""
    names = sorted({*topics} - {""})
    described = model.describe([names.index(topic) if topic else -1 for topic in topics])
    return [found.words for found in described.values() if len(found.words) == WORDS]


def _merged(
    old: Any, fit: TopicModel, vectors: NDArray[np.float32]
) -> tuple[Any, NDArray[np.intp], NDArray[np.intp]]:
    """The models so far merged with that of this window; its topics of the documents, and the nearest ones.

    The nearest are what `transform` of a merged model gives; it is done here by hand, as BERTopic 0.17.4 asks
    for the package hdbscan on that way even where it is not used.
    """
    from bertopic import BERTopic  # noqa: PLC0415

    new = fit.model_
    if old is None:
        return new, fit.labels_, fit.labels_
    model = BERTopic.merge_models([old, new], min_similarity=0.7, embedding_model=new.embedding_model)
    topics = np.asarray(sorted(model.get_topics()))
    near = cosines(vectors - vectors.mean(axis=0), np.asarray(model.topic_embeddings_, dtype=np.float32))
    return model, np.asarray(model.topics_[-len(vectors) :]), topics[near.argmax(axis=1)]


class Online:
    """The two estimators of BERTopic's recipe for streams: IncrementalPCA and MiniBatchKMeans.

    Called directly, since BERTopic 0.17.4's `partial_fit` fails with scikit-learn 1.9 (buffer dtypes).
    """

    def __init__(self, clusters: int = 80) -> None:
        from sklearn.cluster import MiniBatchKMeans  # noqa: PLC0415
        from sklearn.decomposition import IncrementalPCA  # noqa: PLC0415

        self.reduction = IncrementalPCA(n_components=5)
        self.means = MiniBatchKMeans(n_clusters=clusters, random_state=0, n_init=3)
        self.known = 0

    def learn(self, vectors: NDArray[np.float32]) -> None:
        """Take the documents that are new; some days bring none."""
        if not len(vectors):
            return
        rows = vectors.astype(np.float64)
        if len(rows) >= self.reduction.n_components:
            self.reduction.partial_fit(rows)
        if self.known or len(rows) >= self.means.n_clusters:
            reduced = self.reduction.transform(rows)
            self.means.partial_fit(np.ascontiguousarray(reduced, dtype=np.float64))
            self.known += len(rows)

    def predict(self, vectors: NDArray[np.float32]) -> list[int]:
        """The nearest mean, as `predict` of k-means gives it."""
        rows = self.reduction.transform(vectors.astype(np.float64))
        apart = ((rows[:, None, :] - self.means.cluster_centers_[None, :, :]) ** 2).sum(axis=2)
        return [int(label) for label in apart.argmin(axis=1)]
