"""From articles to topics, stances and the sentences that decided: the whole model behind one call."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from classifiers.decisions import UNCLEAR, Expected, Field, Sentence, TopicDecision
from classifiers.encoder import Encoder
from classifiers.errors import ModelError
from classifiers.language import SUPPORTED
from classifiers.stance import StanceClassifier
from classifiers.taxonomy import load_taxonomy
from classifiers.text import sentence_spans
from classifiers.topic import TopicClassifier
from classifiers.user_taxonomy import UserTopic
from classifiers.user_topics import UserTopics

__all__ = ["Assessor"]

REACH = 2
STANCE_WINDOWS = 4
RELEVANT = 0.5
CHARACTERS_MAX = 20_000
TITLE_CHARACTERS_MAX = 2_000
SENTENCE_CHARACTERS_MAX = 2_000
FIELDS: tuple[Field, Field] = ("title", "text")
NO_TOPICS = np.zeros(0, dtype=bool)

_Place = tuple[str, int, int, Field]
"""What a :class:`Sentence` holds; objects take time to make, and only evidence needs them."""


class _Job(NamedTuple):
    """A topic found in an article, and the windows (by sentence) that speak of it."""

    document: int
    column: int
    probability: float
    chosen: list[int]
    relevance: list[float]


class _Cut(NamedTuple):
    """Articles cut into sentences and windows; ``rows`` are the windows (and sentences) of each article."""

    articles: list[list[_Place]]
    opened: list[NDArray[np.bool_]]
    parts: list[str]
    windows: list[range]
    rows: list[slice]


class Assessor:
    """Topic and stance of whole articles.

    1. An article that the taxonomy's gate closes for every topic is off topic; nothing else is read.
    2. An article is cut into sentences; a window is a sentence with two neighbours on each side. The topic
       probability of the article is that of its best window, its odds divided by the number of windows that
       fit side by side: of many windows one looks like a topic by chance (C. E. Bonferroni's correction).
       The topics that a user adds stand beside the shipped ones as further columns (:class:`UserTopics`).
    3. Stance is judged on the (at most four) most relevant windows; the logarithms of their probabilities are
       averaged, weighted by relevance and doubled for the headline. A stance less probable than the
       taxonomy's ``unclear_below`` is labelled ``unclear``; a user's topic without examples of stance is
       always ``unclear``, with probability 0.
    4. The evidence is the sentence (or two) in the middle of the windows with the highest product of
       relevance and probability of the decided stance.

    With an encoder, steps 2 and 3 take the mean of its opinion and the model's: of a topic on the best
    window, of a stance on those that are judged anyway. The topics that a user adds are judged without it.

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
    user_topics : sequence of UserTopic
        Added to the topics of the model, and to its hash.
    encoder : Encoder, optional
        Added to the hash.
    expected : Expected, optional
        What its training measured; models that were stored by earlier versions have none.

    Raises
    ------
    ModelError
        When encoder and model know different topics or stances.
    """

    def __init__(
        self,
        topic_model: TopicClassifier,
        stance_model: StanceClassifier,
        *,
        name: str,
        content_hash: str,
        screen: bool = True,
        user_topics: Sequence[UserTopic] = (),
        encoder: Encoder | None = None,
        expected: Expected | None = None,
    ) -> None:
        self.topic_model = topic_model
        self.stance_model = stance_model
        self.screen = screen
        self.expected = expected
        self.topics = [str(topic) for topic in topic_model.classes_]
        self.thresholds = topic_model.thresholds_
        self.unclear_below = {topic.id: topic.unclear_below for topic in load_taxonomy()}
        self.encoder = encoder
        if encoder:
            labels = [*self.topics, *map(str, stance_model.classes_)]
            if labels != [*encoder.topics, *encoder.stances]:
                message = (
                    f"--accurate knows {', '.join([*encoder.topics, *encoder.stances])}; your model"
                    f" {', '.join(labels)}"
                )
                raise ModelError(message)
            self.thresholds = encoder.thresholds
            content_hash = hashlib.sha256(f"{content_hash}{encoder.content_hash}".encode()).hexdigest()
        self.user = UserTopics(user_topics, stance_model) if user_topics else None
        if self.user:
            self.topics += self.user.ids
            self.thresholds = np.concatenate([self.thresholds, self.user.thresholds])
            self.unclear_below |= {topic.id: topic.unclear_below for topic in user_topics}
            content_hash = hashlib.sha256(f"{content_hash}{self.user.content_hash}".encode()).hexdigest()
        self.content_hash = content_hash
        self.name = f"{name}@{content_hash[:12]}"

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
        cut = self._cut(documents)
        scores = self._topic_scores(cut)
        jobs = [
            job
            for i, rows in enumerate(cut.rows)
            if rows.start < rows.stop
            for job in self._found(i, scores[rows])
        ]
        texts = [
            [[cut.parts[k] for k in cut.windows[cut.rows[job.document].start + i]] for i in job.chosen]
            for job in jobs
        ]
        decisions: list[list[TopicDecision]] = [[] for _ in documents]
        decided = self._decide(jobs, self._stances(jobs, texts), cut.articles)
        for job, decision in zip(jobs, decided, strict=True):
            decisions[job.document].append(decision)
        return [sorted(found, key=lambda decision: -decision.probability) for found in decisions]

    def topic_probabilities(self, documents: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Probability of each topic for whole articles, also below the thresholds.

        Returns
        -------
        ndarray of shape (n_documents, n_topics)
            Columns as in ``topics``.
        """
        cut = self._cut(documents)
        scores = self._topic_scores(cut)
        return np.array([_of_article(scores[rows]) for rows in cut.rows], dtype=np.float32)

    def assess_supported(
        self, documents: Sequence[tuple[str, str]], languages: Sequence[str]
    ) -> list[list[TopicDecision]]:
        """As :meth:`assess`; an article in a language that is not supported is not judged."""
        known = [i for i, language in enumerate(languages) if language in SUPPORTED]
        decisions: list[list[TopicDecision]] = [[] for _ in documents]
        for i, found in zip(known, self.assess([documents[i] for i in known]), strict=True):
            decisions[i] = found
        return decisions

    def _cut(self, documents: Sequence[tuple[str, str]]) -> _Cut:
        """Sentences and windows of all articles."""
        articles, opened = [], []
        for title, text in documents:
            fields = title[:TITLE_CHARACTERS_MAX], text[:CHARACTERS_MAX]
            whole = "\n".join(fields)
            own = self.user.opened(whole) if self.user else NO_TOPICS
            opened.append(own)
            is_read = not self.screen or self.topic_model.gate_.any_open(whole) or (self.user and own.any())
            articles.append(self._sentences(fields) if is_read else [])
        parts = [sentence[0] for sentences in articles for sentence in sentences]
        rows, windows, start = [], list[range](), 0
        for sentences in articles:
            end = start + len(sentences)
            windows += [range(max(start, i - REACH), min(end, i + REACH + 1)) for i in range(start, end)]
            rows.append(slice(start, end))
            start = end
        return _Cut(articles, opened, parts, windows, rows)

    def _topic_scores(self, cut: _Cut) -> NDArray[np.float32]:
        """Probability of each topic for each window: shipped topics, then the user's."""
        scores = self.topic_model.predict_windows(cut.parts, cut.windows)
        if self.encoder:
            for rows in cut.rows:
                scores[rows] = self.encoder.average_topics(scores[rows], cut.parts, cut.windows[rows])
        if self.user is None:
            return scores
        lengths = [rows.stop - rows.start for rows in cut.rows]
        by_article = np.array(cut.opened, dtype=bool).reshape(len(lengths), len(self.user.ids))
        opened = np.repeat(by_article, lengths, axis=0)
        return np.hstack([scores, self.user.predict_windows(cut.parts, cut.windows, opened)])

    def _stances(
        self, jobs: Sequence[_Job], texts: Sequence[Sequence[Sequence[str]]]
    ) -> list[NDArray[np.float32] | None]:
        """Stance probabilities of the windows of each job; None where the stance is never given."""
        shipped = len(self.topic_model.classes_)
        own = [(job, windows) for job, windows in zip(jobs, texts, strict=True) if job.column < shipped]
        read = [window for _, windows in own for window in windows]
        topics = [self.topics[job.column] for job, windows in own for _ in windows]
        judged = self.stance_model.predict_windows(read, topics)
        if self.encoder:
            judged = self.encoder.average_stances(judged, read, topics)
        by_job = iter(np.split(judged, np.cumsum([len(windows) for _, windows in own])[:-1]) if own else ())
        if self.user is None:
            return list(by_job)
        return [
            next(by_job) if job.column < shipped else self.user.predict_stance(job.column - shipped, windows)
            for job, windows in zip(jobs, texts, strict=True)
        ]

    @staticmethod
    def _sentences(fields: tuple[str, str]) -> list[_Place]:
        """Sentences of an article with their places."""
        found: list[_Place] = []
        for name, content in zip(FIELDS, fields, strict=True):
            for start, end in sentence_spans(content):
                if end - start <= SENTENCE_CHARACTERS_MAX:
                    found.append((content[start:end], start, end, name))
                    continue
                for cut in range(start, end, SENTENCE_CHARACTERS_MAX):
                    to = min(cut + SENTENCE_CHARACTERS_MAX, end)
                    found.append((content[cut:to], cut, to, name))
        return found

    def _found(self, document: int, scores: NDArray[np.float32]) -> list[_Job]:
        best = _of_article(scores)
        jobs = []
        for column in np.flatnonzero(best >= self.thresholds).tolist():
            relevance = scores[:, column].tolist()
            order = sorted(range(len(relevance)), key=relevance.__getitem__, reverse=True)[:STANCE_WINDOWS]
            floor = min(RELEVANT, relevance[order[0]])
            chosen = sorted(i for i in order if relevance[i] >= floor)
            jobs.append(_Job(document, column, float(best[column]), chosen, [relevance[i] for i in chosen]))
        return jobs

    def _decide(
        self,
        jobs: Sequence[_Job],
        judged: Sequence[NDArray[np.float32] | None],
        articles: Sequence[Sequence[_Place]],
    ) -> Iterator[TopicDecision]:
        """Decisions of all jobs; computed together, since each has a handful of figures."""
        relevance = np.zeros((len(jobs), STANCE_WINDOWS), dtype=np.float32)
        opinions = np.ones((*relevance.shape, len(self.stance_model.classes_)), dtype=np.float32)
        for row, (job, opinion) in enumerate(zip(jobs, judged, strict=True)):
            relevance[row, : len(job.chosen)] = job.relevance
            if opinion is not None:
                opinions[row, : len(job.chosen)] = opinion
        weight = relevance.astype(np.float64)
        weight[[job.chosen[0] == 0 for job in jobs], 0] *= 2
        mean = (np.log(opinions + 1e-6) * weight[:, :, None]).sum(axis=1)
        mean = np.exp(mean / weight.sum(axis=1, keepdims=True))
        mean /= mean.sum(axis=1, keepdims=True)
        decided = mean.argmax(axis=1).tolist()
        strength = relevance * opinions[np.arange(len(jobs)), :, decided]
        order = np.argsort(-strength, axis=1, kind="stable")[:, :2]
        best = np.take_along_axis(strength, order, axis=1)
        rows = zip(order.tolist(), (best[:, 1] >= 0.8 * best[:, 0]).tolist(), strict=True)
        for row, (job, (places, is_second_kept)) in enumerate(zip(jobs, rows, strict=True)):
            stance, stance_probability = UNCLEAR, 0.0
            if judged[row] is not None:
                stance_probability = float(mean[row, decided[row]])
                if stance_probability >= self.unclear_below.get(self.topics[job.column], 0.0):
                    stance = self.stance_model.classes_[decided[row]]
            kept = sorted(places[: 1 + (is_second_kept and places[1] < len(job.chosen))])
            yield TopicDecision(
                topic=self.topics[job.column],
                probability=round(job.probability, 4),
                stance=str(stance),  # type: ignore[arg-type]
                stance_probability=round(stance_probability, 4),
                evidence=tuple(Sentence(*articles[job.document][job.chosen[i]]) for i in kept),
            )


def _of_article(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Topic probabilities of an article from those of its windows, shape (n_windows, n_topics)."""
    best = scores.max(axis=0, initial=0)
    side_by_side = max(1.0, len(scores) / (2 * REACH + 1))
    return np.asarray(best / (best + (1 - best) * side_by_side), dtype=np.float32)
