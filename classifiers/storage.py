"""Models on disk: safetensors (no pickle, no code), a model card, and a hash that is checked on loading."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from threadpoolctl import threadpool_limits

from classifiers.assessor import Assessor
from classifiers.decisions import Expected
from classifiers.encoder import BaseWeights, Encoder
from classifiers.errors import ModelError
from classifiers.stance import StanceClassifier
from classifiers.topic import TopicClassifier
from classifiers.training import Example, data_hash, train_models
from classifiers.user_taxonomy import load_user_taxonomy

__all__ = ["load", "load_encoder", "load_shipped", "train_and_save", "training_hash"]

FORMAT = "stancewatch-lexical-3"
WEIGHTS = "model.safetensors"
TUNED = "tuned.safetensors"
CARD = "MODEL_CARD.md"
KNOWLEDGE = ("topics.yaml", "data/hints.yaml", "data/lexicon.tsv", "data/stance_frames.yaml")
CODE = (
    "calibration embedding extras features frames gate hints lexicon mention search stance taxonomy text"
    " topic training"
)


def train_and_save(
    folder: Path,
    examples: Sequence[Example],
    *,
    data_origin: str,
    progress: Callable[[str], None] = lambda _: None,
) -> Assessor:
    """Train, write weights and card into `folder` (atomically), and load the result.

    Parameters
    ----------
    folder : Path
        Made when missing.
    examples : sequence of Example
    data_origin : str
        For the card: where the examples came from.
    progress : callable
        Told what is being done.
    """
    with threadpool_limits(limits=1):  # sums in another order would give other bytes
        topic_model, stance_model = train_models(examples, progress=progress)
    metadata = {
        "format": FORMAT,
        "topics": topic_model.classes_.tolist(),
        "stances": stance_model.classes_.tolist(),
        "stance_topics": stance_model.topics_.tolist(),
        "knowledge_sha256": _knowledge_hash(),
        "data_sha256": data_hash(examples),
        "expected": [round(share, 4) for share in stance_model.expected_],
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


def load_shipped(taxonomy: Path | None = None, *, accurate: bool = False) -> Assessor:
    """Load the model that comes with the package, with the topics of a user's file beside its own."""
    with resources.as_file(resources.files("classifiers").joinpath("model")) as folder:
        return load(folder, taxonomy, accurate=accurate)


def load(folder: Path, taxonomy: Path | None = None, *, accurate: bool = False) -> Assessor:
    """Load a stored model.

    Parameters
    ----------
    folder : Path
    taxonomy : Path, optional
        YAML file of topics that are added to those of the model (:func:`load_user_taxonomy`).
    accurate : bool
        With the encoder that comes with the package.

    Raises
    ------
    ModelError
        When it is missing, damaged (hash or content), of another format, or was trained with another lexicon
        or taxonomy.
    DataError
        When the user's file has an error.
    """
    path = folder / WEIGHTS
    weights, digest = _checked(
        path,
        f"no model in {folder}: run `stancewatch train --into {folder}`",
        "run `stancewatch train` again",
    )
    try:
        with safe_open(str(path), framework="numpy") as stored:
            metadata = json.loads(stored.metadata()["model"])
        if metadata["format"] != FORMAT or metadata["knowledge_sha256"] != _knowledge_hash():
            message = f"{path} is of another version, lexicon or frames: run `stancewatch train` again"
            raise ModelError(message)
        tensors = load_tensors(weights)
        topic_model = TopicClassifier.from_tensors(tensors, metadata["topics"])
        stance_model = StanceClassifier.from_tensors(tensors, metadata["stances"], metadata["stance_topics"])
        expected = Expected(*metadata["expected"]) if "expected" in metadata else None
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        message = f"{path} is not a model of this version: {error!r}. Run `stancewatch train` again"
        raise ModelError(message) from None
    user_topics = load_user_taxonomy(taxonomy, metadata["topics"]) if taxonomy else ()
    return Assessor(
        topic_model,
        stance_model,
        name="stancewatch-accurate" if accurate else "stancewatch",
        content_hash=digest,
        user_topics=user_topics,
        encoder=load_encoder() if accurate else None,
        expected=expected,
    )


def load_encoder(folder: Path | None = None) -> Encoder:
    """Load the encoder of ``--accurate``: the one that comes with the package, or that of a folder.

    Raises
    ------
    ModelError
        When its base model is not installed, or it is damaged.
    """
    base = BaseWeights.installed()
    with resources.as_file(resources.files("classifiers").joinpath("accurate")) as shipped:
        path = (folder or shipped) / TUNED
        weights, digest = _checked(path, f"no encoder in {path.parent}", "reinstall stancewatch")
        try:
            with safe_open(str(path), framework="numpy") as stored:
                objects = json.loads(stored.metadata()["objects"])
            return Encoder(base, load_tensors(weights), objects, digest)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            message = f"{path} is not an encoder of this version: {error!r}. Reinstall stancewatch"
            raise ModelError(message) from None


def _checked(path: Path, missing: str, remedy: str) -> tuple[bytes, str]:
    """Content and SHA-256 of a file that a ``.sha256`` file vouches for."""
    try:
        content = path.read_bytes()
        expected = Path(f"{path}.sha256").read_text().split()[0]
    except (OSError, IndexError):
        raise ModelError(missing) from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected:
        message = f"{path} has SHA-256 {digest}, its .sha256 file says {expected}: {remedy}"
        raise ModelError(message)
    return content, digest


def training_hash(folder: Path | None = None) -> str:
    """SHA-256 of the labelled texts (:func:`data_hash`) that a model (the shipped one) was made of.

    Raises
    ------
    ModelError
        When there is no model.
    """
    with resources.as_file(resources.files("classifiers").joinpath("model")) as shipped:
        path = (folder or shipped) / WEIGHTS
        try:
            with safe_open(str(path), framework="numpy") as stored:
                return str(json.loads(stored.metadata()["model"])["data_sha256"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            message = f"cannot read the model {path}: {error!r}. Run `stancewatch train` again"
            raise ModelError(message) from None


def _knowledge_hash() -> str:
    """SHA-256 of lexicon, hints, frames and taxonomy: columns of the model follow their lines."""
    return _files_hash(KNOWLEDGE)


def _files_hash(names: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update(resources.files("classifiers").joinpath(name).read_bytes())
    return digest.hexdigest()


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
- Data: {len(examples)} labelled texts ({data_origin}), SHA-256 `{metadata["data_sha256"]}`;
  {sum(not e.topics for e in examples)} of them off topic, {sum(bool(e.source) for e in examples)} real rows
- Lexicon, hints, frames and taxonomy: SHA-256 `{metadata["knowledge_sha256"]}`
- Code: modules of `classifiers/` that training runs ({CODE}, one after another), SHA-256
  `{_files_hash(f"{name}.py" for name in CODE.split())}`
- Method: TF-IDF of words and word pairs; topics by one logistic regression each (with authored hints, behind
  a gate of needed terms), stance by one target-aware logistic regression (with an authored lexicon and
  authored frames); both calibrated on out-of-fold scores
- Expected of a stream, by rows left out of a part of the training: mean probability of the most probable
  stance {metadata["expected"][0]:.3f}, share of unclear stances {metadata["expected"][1]:.3f}
- Software: stancewatch {version("stancewatch")}, scikit-learn {sklearn.__version__}
- Licence: Apache-2.0. Language: English.

| topic/stance | texts |
|---|---|
{table}

Limits: stance on real news is much harder than topics; two careful readers agree by macro F1 0.93 to 0.98 on
stance. See the README of the project for measured accuracy.
"""
