"""From articles to topics, stances and the sentences that decided: the whole model behind one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from classifiers.decisions import UNCLEAR, Field, Sentence, TopicDecision
from classifiers.language import SUPPORTED
from classifiers.stance import StanceClassifier
from classifiers.taxonomy import load_taxonomy
from classifiers.text import sentence_spans
from classifiers.topic import TopicClassifier

__all__ = ["Assessor"]

REACH = 2
STANCE_WINDOWS = 4
RELEVANT = 0.5
CHARACTERS_MAX = 20_000
TITLE_CHARACTERS_MAX = 2_000
SENTENCE_CHARACTERS_MAX = 2_000


class _Job(NamedTuple):
    """A topic found in an article, and the windows (by sentence) that speak of it."""

    document: int
    column: int
    probability: float
    chosen: NDArray[np.intp]
    relevance: NDArray[np.float32]


class Assessor:
    """Topic and stance of whole articles.

    1. An article that the taxonomy's gate closes for every topic is off topic; nothing else is read.
    2. An article is cut into sentences; a window is a sentence with two neighbours on each side. The topic
       probability of the article is that of its best window.
    3. Stance is judged on the (at most four) most relevant windows; the logarithms of their probabilities are
       averaged, weighted by relevance and doubled for the headline. A stance less probable than the
       taxonomy's ``unclear_below`` is labelled ``unclear``.
    4. The evidence is the sentence (or two) in the middle of the windows with the highest product of
       relevance and probability of the decided stance.

    Parameters
    ----------
    topic_model : TopicClassifier
    stance_model : StanceClassifier
    name : str
        Name and version for the records.
    content_hash : str
        SHA-256 of the stored model.
    screen : bool
        Step 1; off only to test that it changes nothing.
    """

    def __init__(
        self,
        topic_model: TopicClassifier,
        stance_model: StanceClassifier,
        *,
        name: str,
        content_hash: str,
        screen: bool = True,
    ) -> None:
        self.topic_model = topic_model
        self.stance_model = stance_model
        self.content_hash = content_hash
        self.name = f"{name}@{content_hash[:12]}"
        self.screen = screen
        self.unclear_below = {topic.id: topic.unclear_below for topic in load_taxonomy()}

    @property
    def topics(self) -> list[str]:
        """Topic ids that this model can assign."""
        return [str(topic) for topic in self.topic_model.classes_]

    def assess(self, documents: Sequence[tuple[str, str]]) -> list[list[TopicDecision]]:
        """Decide on a batch of articles.

        Parameters
        ----------
        documents : sequence of (title, text)
            What lies beyond 20,000 characters of a text, or 2,000 of a title, is not read; a sentence of more
            than 2,000 characters is cut into several.

        Returns
        -------
        list of lists of TopicDecision
            One list an article, by falling probability; empty for off topic.
        """
        articles = [self._sentences(title, text) for title, text in documents]
        parts = [sentence.text for sentences in articles for sentence in sentences]
        ends = np.cumsum([len(sentences) for sentences in articles], dtype=int)
        windows: list[range] = []
        for sentences, end in zip(articles, ends, strict=True):
            start = end - len(sentences)
            windows += [range(max(start, i - REACH), min(end, i + REACH + 1)) for i in range(start, end)]
        scores = self.topic_model.predict_windows(parts, windows)
        jobs: list[_Job] = []
        for document, (sentences, end) in enumerate(zip(articles, ends, strict=True)):
            jobs += self._found(document, scores[end - len(sentences) : end])
        starts = ends - [len(sentences) for sentences in articles]
        texts = [[parts[k] for k in windows[starts[job.document] + i]] for job in jobs for i in job.chosen]
        names = [self.topics[job.column] for job in jobs for _ in job.chosen]
        stances = self.stance_model.predict_windows(texts, names)
        decisions: list[list[TopicDecision]] = [[] for _ in documents]
        first = 0
        for job in jobs:
            judged = stances[first : first + len(job.chosen)]
            first += len(job.chosen)
            decisions[job.document].append(self._decide(job, judged, articles[job.document]))
        return [sorted(found, key=lambda decision: -decision.probability) for found in decisions]

    def assess_supported(
        self, documents: Sequence[tuple[str, str]], languages: Sequence[str]
    ) -> list[list[TopicDecision]]:
        """As :meth:`assess`; an article in a language that is not supported is not judged."""
        known = [i for i, language in enumerate(languages) if language in SUPPORTED]
        decisions: list[list[TopicDecision]] = [[] for _ in documents]
        for i, found in zip(known, self.assess([documents[i] for i in known]), strict=True):
            decisions[i] = found
        return decisions

    def _sentences(self, title: str, text: str) -> list[Sentence]:
        """Sentences of an article with their places; none when it is screened out."""
        fields: tuple[tuple[Field, str], ...] = (
            ("title", title[:TITLE_CHARACTERS_MAX]),
            ("text", text[:CHARACTERS_MAX]),
        )
        if self.screen and not self.topic_model.gate_.any_open("\n".join(content for _, content in fields)):
            return []
        return [
            Sentence(
                content[cut : min(cut + SENTENCE_CHARACTERS_MAX, end)],
                cut,
                min(cut + SENTENCE_CHARACTERS_MAX, end),
                name,
            )
            for name, content in fields
            for start, end in sentence_spans(content)
            for cut in range(start, end, SENTENCE_CHARACTERS_MAX)
        ]

    def _found(self, document: int, scores: NDArray[np.float32]) -> list[_Job]:
        if not len(scores):
            return []
        best = scores.max(axis=0)
        jobs = []
        for column in np.flatnonzero(best >= self.topic_model.thresholds_).tolist():
            relevance = scores[:, column]
            order = np.argsort(-relevance, kind="stable")[:STANCE_WINDOWS]
            floor = min(RELEVANT, float(best[column]))
            chosen = np.sort(order[relevance[order] >= floor])
            jobs.append(_Job(document, column, float(best[column]), chosen, relevance[chosen]))
        return jobs

    def _decide(self, job: _Job, judged: NDArray[np.float32], sentences: Sequence[Sentence]) -> TopicDecision:
        weight = job.relevance * np.where(job.chosen == 0, 2.0, 1.0)
        mean = np.exp((np.log(judged + 1e-6) * weight[:, None]).sum(axis=0) / weight.sum())
        mean /= mean.sum()
        decided = int(mean.argmax())
        strength = job.relevance * judged[:, decided]
        order = np.argsort(-strength, kind="stable")[:2]
        kept = sorted(
            i for rank, i in enumerate(order) if rank == 0 or strength[i] >= 0.8 * strength[order[0]]
        )
        topic = self.topics[job.column]
        clear = mean[decided] >= self.unclear_below.get(topic, 0.0)
        return TopicDecision(
            topic=topic,
            probability=round(job.probability, 4),
            stance=str(self.stance_model.classes_[decided]) if clear else UNCLEAR,  # type: ignore[arg-type]
            stance_probability=round(float(mean[decided]), 4),
            evidence=tuple(sentences[job.chosen[i]] for i in kept),
        )
