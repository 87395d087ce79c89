"""Features of the stance classifier that are off by default."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy import sparse

from classifiers.embedding import Embedding, WordClasses, directions
from classifiers.errors import DataError
from classifiers.features import NgramFeatures, Tensors, as_bytes
from classifiers.mention import around, split_mention, tokens
from classifiers.text import sentences

__all__ = ["EMBEDDING_WEIGHT", "StanceExtras"]

EMBEDDING_WEIGHT = 0.7
CHARS = {"ngram_range": (2, 5), "analyzer": "char_wb"}
TOKENS = {"ngram_range": (1, 3), "token_pattern": r"\S+"}
REACHES = (4, 8)
REACH_CLASSES = 6


class StanceExtras:
    """Character n-grams, the surroundings of a marked mention, and a frozen embedding, each where wanted.

    Parameters
    ----------
    min_df : int
    chars, mention, embedding : bool
        As :class:`StanceClassifier` describes them.
    """

    def __init__(
        self, min_df: int = 2, *, chars: bool = False, mention: bool = False, embedding: bool = False
    ) -> None:
        self.min_df = min_df
        self.chars = chars
        self.mention = mention
        self.embedding = embedding
        self.blocks: dict[str, NgramFeatures] = {}
        self.classes = WordClasses({})

    def masked(self, texts: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
        """Texts as the other features read them: one word in the place of each mention."""
        if not self.mention:
            return texts
        return [sentences(split_mention(" ".join(text))[0]) for text in texts]

    def fit(self, texts: Sequence[Sequence[str]]) -> StanceExtras:
        """Choose terms, weights and word classes on texts that are cut into sentences.

        Raises
        ------
        DataError
            When mentions are wanted and no text marks one.
        """
        if self.mention and not any(split_mention(" ".join(text))[1] for text in texts):
            message = "mention=True, but no text marks what it is judged about as [[name]]"
            raise DataError(message)
        if self.embedding and self.mention:
            words = [tokens(" ".join(text)) for text in self.masked(texts)]
            self.classes = WordClasses.fit(words, self.min_df)
        self.blocks = {
            name: NgramFeatures(1 if name == "named" else self.min_df, _options(name)).fit_parts(view)
            for name, view in self._views(texts).items()
        }
        return self

    def transform(self, texts: Sequence[Sequence[str]]) -> list[sparse.csr_matrix]:
        """One matrix for each kind of feature, a row a text; no matrix when all are off."""
        found = [self.blocks[name].transform(view) for name, view in self._views(texts).items()]
        if self.embedding:
            whole = [split_mention(" ".join(text)) for text in texts]
            vectors = directions(Embedding.shared().sums([plain for plain, _ in whole]))
            found.append(sparse.csr_matrix(vectors * np.float32(EMBEDDING_WEIGHT)))
        return found

    def _views(self, texts: Sequence[Sequence[str]]) -> dict[str, Sequence[Sequence[str]]]:
        """The texts as each block reads them."""
        views: dict[str, Sequence[Sequence[str]]] = {}
        masked = self.masked(texts)
        if self.chars:
            views["chars"] = masked
        if self.mention:
            words = [tokens(" ".join(text)) for text in masked]
            views["named"] = [[split_mention(" ".join(text))[1]] for text in texts]
            for reach in REACHES:
                views[f"near{reach}"] = [[around(text, reach)] for text in words]
            if self.embedding:
                near = partial(around, reach=REACH_CLASSES, name=self.classes.of)
                views["classes_near"] = [[near(text)] for text in words]
                views["classes"] = [[" ".join(map(self.classes.of, text))] for text in words]
        return views

    def settings(self) -> dict[str, Any]:
        """What is on, as parameters of the classifier."""
        return {"chars": self.chars, "mention": self.mention, "embedding": self.embedding}

    def tensors(self) -> Tensors:
        """Stored form; empty when all are off."""
        stored: Tensors = {}
        for name, block in self.blocks.items():
            stored |= block.tensors(f"stance.{name}")
        if self.embedding:
            stored["stance.class_words"] = as_bytes("\n".join(self.classes.classes))
            stored["stance.class_numbers"] = np.array(list(self.classes.classes.values()), dtype=np.int32)
        return stored

    @classmethod
    def from_tensors(cls, tensors: Tensors) -> StanceExtras:
        """Inverse of :meth:`tensors`: what is on is told by what is stored."""
        extras = cls(
            chars="stance.chars.terms" in tensors,
            mention="stance.named.terms" in tensors,
            embedding="stance.class_words" in tensors,
        )
        if extras.embedding:
            words = tensors["stance.class_words"].tobytes().decode().splitlines()
            extras.classes = WordClasses(
                dict(zip(words, tensors["stance.class_numbers"].tolist(), strict=True))
            )
        for name in extras._views([]):
            extras.blocks[name] = NgramFeatures(1, _options(name)).restore(tensors, f"stance.{name}")
        return extras


def _options(block: str) -> dict[str, Any]:
    return CHARS if block == "chars" else TOKENS
