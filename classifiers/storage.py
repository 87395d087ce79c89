"""Models on disk: safetensors (no pickle, no code), a model card, and a hash that is checked on loading."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from classifiers.assessor import Assessor
from classifiers.errors import ModelError
from classifiers.stance import StanceClassifier
from classifiers.topic import TopicClassifier
from classifiers.training import Example, data_hash, shipped_examples, train_models

__all__ = ["default_folder", "load", "load_or_train", "train_and_save"]

FORMAT = "stancewatch-tfidf-1"
WEIGHTS = "model.safetensors"
CARD = "MODEL_CARD.md"
THRESHOLD = 0.75


def train_and_save(folder: Path, examples: Sequence[Example], *, data_origin: str) -> Assessor:
    """Train, write weights and card into `folder` (atomically), and load the result.

    Parameters
    ----------
    folder : Path
        Made when missing.
    examples : sequence of Example
    data_origin : str
        For the card: where the examples came from.
    """
    topic_model, stance_model = train_models(examples)
    metadata = {
        "format": FORMAT,
        "topics": topic_model.classes_.tolist(),
        "stances": stance_model.classes_.tolist(),
        "stance_topics": stance_model.topics_.tolist(),
        "threshold": THRESHOLD,
        "data_sha256": data_hash(examples),
    }
    # safetensors writes the memory as it lies, so rows must lie one after the other. One metadata entry:
    # the order of several is not defined, and the file must be the same every time.
    tensors = {**topic_model.tensors(), **stance_model.tensors()}
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    weights = save_tensors(contiguous, {"model": json.dumps(metadata)})
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(weights).hexdigest()
    _write(folder / WEIGHTS, weights)
    _write(folder / CARD, _card(digest, metadata, examples, data_origin).encode())
    _write(folder / f"{WEIGHTS}.sha256", f"{digest}  {WEIGHTS}\n".encode())
    return load(folder)


def load(folder: Path) -> Assessor:
    """Load a stored model.

    Raises
    ------
    ModelError
        When it is missing, damaged (hash or content) or of another format.
    """
    path = folder / WEIGHTS
    try:
        weights = path.read_bytes()
        expected = (folder / f"{WEIGHTS}.sha256").read_text().split()[0]
    except (OSError, IndexError):
        message = f"no model in {folder}: run `stancewatch train`"
        raise ModelError(message) from None
    digest = hashlib.sha256(weights).hexdigest()
    if digest != expected:
        message = (
            f"{path} has SHA-256 {digest}, its .sha256 file says {expected}: run `stancewatch train` again"
        )
        raise ModelError(message)
    try:
        with safe_open(str(path), framework="numpy") as stored:
            metadata = json.loads(stored.metadata()["model"])
        if metadata.get("format") != FORMAT:
            message = f"{path} has format {metadata.get('format')!r}, expected {FORMAT!r}"
            raise ModelError(message)
        tensors = load_tensors(weights)
        topic_model = TopicClassifier.from_tensors(tensors, metadata["topics"])
        stance_model = StanceClassifier.from_tensors(tensors, metadata["stances"], metadata["stance_topics"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        message = f"{path} is not a model of this version: {error}. Run `stancewatch train` again"
        raise ModelError(message) from None
    return Assessor(
        topic_model,
        stance_model,
        threshold=metadata["threshold"],
        name="stancewatch-tfidf",
        content_hash=digest,
    )


def default_folder(folder: Path, examples: Sequence[Example]) -> Path:
    """Where the model of these examples is kept: a subfolder named by format and data."""
    return folder / f"{FORMAT}-{data_hash(examples)[:12]}"


def load_or_train(folder: Path, *, say: Callable[[str], None]) -> Assessor:
    """Load the model of the shipped passages from a subfolder named by their hash; train it when missing.

    Parameters
    ----------
    folder : Path
        Holds one subfolder a data version.
    say : callable
        Told before and after training.
    """
    examples = shipped_examples()
    place = default_folder(folder, examples)
    if (place / f"{WEIGHTS}.sha256").is_file():
        return load(place)
    say(f"training the classifier on {len(examples)} passages (once, takes some seconds) ...")
    assessor = train_and_save(place, examples, data_origin="passages shipped with the package")
    say(f"trained {assessor.name}, kept in {place}")
    return assessor


def _write(path: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    Path(name).chmod(0o644)
    Path(name).replace(path)


def _card(digest: str, metadata: dict[str, Any], examples: Sequence[Example], data_origin: str) -> str:
    labels = [f"{topic}/{e.stance[topic]}" for e in examples for topic in e.topics]
    table = "\n".join(f"| {label} | {labels.count(label)} |" for label in sorted(set(labels)))
    return f"""# Stancewatch topic and stance model

- Weights: `{WEIGHTS}`, SHA-256 `{digest}`, format `{metadata["format"]}`
- Data: {len(examples)} labelled passages ({data_origin}), SHA-256 `{metadata["data_sha256"]}`;
  {sum(not e.topics for e in examples)} of them off topic
- Method: TF-IDF of words and word pairs; one logistic regression a topic, one for stance (target-aware)
- Software: stancewatch {version("stancewatch")}, scikit-learn {sklearn.__version__}
- Licence: Apache-2.0. Language: English.

| topic/stance | passages |
|---|---|
{table}

Limits: trained on passages written for the purpose; stance on real news is much harder than topics.
See the README of the project for measured accuracy.
"""
