"""From articles to topics, stances and the sentences that decided: the whole model behind one call."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from classifiers.decisions import Field, Sentence, TopicDecision
from classifiers.stance import StanceClassifier
from classifiers.text import sentence_spans
from classifiers.topic import TopicClassifier

__all__ = ["Assessor"]

WINDOW_SENTENCES = 3
BEST_WINDOWS = 3
RELEVANT = 0.5
CHARACTERS_MAX = 20_000
TITLE_CHARACTERS_MAX = 2_000
SENTENCE_CHARACTERS_MAX = 2_000


class Assessor:
    """Topic and stance of whole articles.

    An article is cut into sentences; each window of up to three neighbouring sentences is scored for
    every topic. The topic probability of the article is the mean of its three best windows: one window that
    only sounds like the topic does not carry an article. Stance is decided once a topic, on the sentences
    whose windows are relevant to it. The evidence is the sentence (or two) with the highest product of
    topic probability and probability of the decided stance.

    Parameters
    ----------
    topic_model : TopicClassifier
    stance_model : StanceClassifier
    threshold : float
        Least topic probability, 0 to 1.
    name : str
        Name and version for the records.
    content_hash : str
        SHA-256 of the stored model.
    """

    def __init__(
        self,
        topic_model: TopicClassifier,
        stance_model: StanceClassifier,
        *,
        threshold: float,
        name: str,
        content_hash: str,
    ) -> None:
        self.topic_model = topic_model
        self.stance_model = stance_model
        self.threshold = threshold
        self.content_hash = content_hash
        self.name = f"{name}@{content_hash[:12]}"

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
        sentences = [
            _sentences(title[:TITLE_CHARACTERS_MAX], text[:CHARACTERS_MAX]) for title, text in documents
        ]
        windows = [_windows(parts) for parts in sentences]
        flat = [text for group in windows for text in group]
        if not flat:
            return [[] for _ in documents]
        scores = self.topic_model.predict_proba(flat)
        decisions = []
        start = 0
        for parts, group in zip(sentences, windows, strict=True):
            end = start + len(group)
            decisions.append(self._decide(parts, group, scores[start:end]))
            start = end
        return decisions

    def _decide(
        self, parts: Sequence[Sentence], windows: Sequence[str], scores: NDArray[np.float32]
    ) -> list[TopicDecision]:
        if not parts:
            return []
        probability = np.sort(scores, axis=0)[-BEST_WINDOWS:].mean(axis=0)
        found = [
            self._decide_topic(column, float(probability[column]), parts, windows, scores[:, column])
            for column in np.flatnonzero(probability >= self.threshold).tolist()
        ]
        return sorted(found, key=lambda decision: -decision.probability)

    def _decide_topic(
        self,
        column: int,
        probability: float,
        parts: Sequence[Sentence],
        windows: Sequence[str],
        relevance: NDArray[np.float32],
    ) -> TopicDecision:
        topic = str(self.topic_model.classes_[column])
        relevant = np.flatnonzero(relevance >= min(RELEVANT, float(relevance.max()))).tolist()
        passage = " ".join(parts[i].text for i in relevant)
        stances = self.stance_model.predict_proba(
            [passage, *(windows[i] for i in relevant)], [topic] * (len(relevant) + 1)
        )
        decided = int(stances[0].argmax())
        strength = relevance[relevant] * stances[1:, decided]
        order = np.argsort(-strength, kind="stable")[:2]
        chosen = [i for rank, i in enumerate(order) if rank == 0 or strength[i] >= 0.8 * strength[order[0]]]
        return TopicDecision(
            topic=topic,
            probability=round(probability, 4),
            stance=str(self.stance_model.classes_[decided]),  # type: ignore[arg-type]
            stance_probability=round(float(stances[0, decided]), 4),
            evidence=tuple(parts[relevant[i]] for i in sorted(chosen)),
        )


def _sentences(title: str, text: str) -> list[Sentence]:
    fields: tuple[tuple[Field, str], ...] = (("title", title), ("text", text))
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


def _windows(parts: Sequence[Sentence]) -> list[str]:
    """One window a sentence: the sentence and its neighbours."""
    reach = WINDOW_SENTENCES // 2
    return [
        " ".join(part.text for part in parts[max(0, i - reach) : i + reach + 1]) for i in range(len(parts))
    ]
