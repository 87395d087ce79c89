"""Vectors of the base model of ``--accurate`` as it comes, without our changes; needs no torch."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors

from classifiers.encoder import WIDTH, BaseWeights, Encoder, Reading, untuned
from classifiers.storage import TUNED

Vectors = NDArray[np.float32]
Span = tuple[int, int]
MENTION = "someone"  # one token, and no name that the base model knows something about


class Frozen:
    """What the encoder's heads read: the mean of its states over a text, and over the mention in it.

    Parameters
    ----------
    file : Path, optional
        Vectors are kept there between runs: a text takes 25 ms of a core.
    """

    def __init__(self, file: Path | None = None) -> None:
        shipped = resources.files("classifiers").joinpath("accurate", TUNED).read_bytes()
        self._encoder = Encoder(BaseWeights.installed(), untuned(load_tensors(shipped)["vocabulary"]), {})
        self._file = file
        self._kept: dict[bytes, Vectors] = {}
        if file and file.is_file():
            with np.load(file) as stored:
                keys = [key.tobytes() for key in stored["keys"]]
                self._kept = dict(zip(keys, stored["rows"], strict=True))

    def texts(self, texts: Sequence[str]) -> Vectors:
        """Mean over each text, shape (n_texts, 384)."""
        return self._read([self._encoder.reader(text) for text in texts])[:, :WIDTH]

    def mentions(self, texts: Sequence[str], spans: Sequence[Span]) -> Vectors:
        """Mean over each text, then the state at the word that replaces its mention; shape (n_texts, 768)."""
        readings = []
        for text, (start, end) in zip(texts, spans, strict=True):
            whole = self._encoder.reader(f"{text[:start]}{MENTION}{text[end:]}")
            place = len(self._encoder.reader(text[:start]).ids) - 1
            near = [place] if place < len(whole.ids) - 1 else whole.near  # beyond what is read: the text
            readings.append(Reading(whole.ids, whole.second, near))
        return self._read(readings)

    def _read(self, readings: Sequence[Reading]) -> Vectors:
        keys = [hashlib.sha256(repr((reading.ids, reading.near)).encode()).digest() for reading in readings]
        missing = {key: reading for key, reading in zip(keys, readings, strict=True) if key not in self._kept}
        for count, (key, reading) in enumerate(missing.items(), start=1):
            states = self._encoder.states(reading)
            self._kept[key] = np.concatenate([states.mean(axis=0), states[reading.near].mean(axis=0)])
            if count % 500 == 0:
                print(f"  encoder: {count} of {len(missing)} texts", file=sys.stderr, flush=True)
        if missing and self._file:
            with self._file.open("wb") as file:
                as_rows = np.frombuffer(b"".join(self._kept), np.uint8).reshape(len(self._kept), -1)
                np.savez(file, keys=as_rows, rows=np.stack(list(self._kept.values())))
        return np.stack([self._kept[key] for key in keys])
