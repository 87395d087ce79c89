"""What settings of the topic model give: quality, stability between two windows, time and memory.

Part of ``benchmarks.discovery``. Every setting runs in a fresh process (this file, with the setting as JSON),
so that its peak memory is its own; its row is printed when it is done.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.discovery_data import agreement, coherence, dated, day, distinct, diversity, undated
from classifiers.discovery.model import ModelOptions, TopicModel, embed
from stream.view import progress_bar

SHIFT = 0.04
"""So large a part of the second window is new: three days of 5,000 headlines."""
PAIRS_MAX = 20000
"""Larger windows are fitted once, behind a small one that compiles."""
COLUMNS = (
    "documents (distinct)",
    "embedding",
    "reduction",
    "neighbours",
    "cluster, samples",
    "method",
    "topics",
    "outliers",
    "C_NPMI",
    "diversity",
    "AMI",
    "s",
    "cpu s",
    "peak MiB",
)


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table."""

    data: str
    size: int
    end: str
    options: ModelOptions = ModelOptions()
    encoder: str = "WordLlama"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of it; seconds from texts to words, of the second fit (the first one compiles)."""

    distinct: int
    topics: int
    outliers: float
    coherence: float
    diversity: float
    ami: float | None
    seconds: float
    cpu_seconds: float
    peak_mib: float


def grid(data: Path, end: str) -> list[Trial]:
    """One change at a time at 5,000 documents, the promising ones on more."""
    small: list[dict[str, Any]] = [
        {},
        {"cluster_min": 10, "samples_min": 5},
        {"reduction": "pca", "components": 20},
        {"method": "leaf"},
        {"neighbors": 30},
        {"cluster_min": 15, "samples_min": 5},
        {"reduction": "pca"},
        {"components": 10},
        {"neighbors": 5},
        {"epochs": 500},
    ]
    large = small[:3]
    trials = [
        Trial(data=str(data), size=size, end=end, options=ModelOptions(**change))
        for size, settings in ((5000, small), (20000, large), (50000, large))
        for change in settings
    ]
    return [*trials, Trial(data=str(data), size=5000, end=end, encoder="MiniLM int8")]


def parameters(data: Path, end: str, sizes: Sequence[int], seconds: float) -> None:
    """One row by setting, as soon as it is known; none takes longer than `seconds`."""
    trials = [trial for trial in grid(data, end) if trial.size in sizes]
    print(f"\n## parameters: 5,000 documents end on {end}, larger windows hold all; {SHIFT:.0%} new\n")
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|", flush=True)
    with progress_bar("settings") as advance:
        for done, trial in enumerate(trials):
            advance(f"{trial.size} documents, {trial.encoder}", done, len(trials))
            print(f"| {' | '.join(_cells(trial, seconds))} |", flush=True)


def _cells(trial: Trial, seconds: float) -> list[str]:
    options = trial.options
    epochs = f", {options.epochs} epochs" if options.reduction == "umap" else ""
    what = [
        trial.encoder,
        f"{options.reduction} {options.components}{epochs}",
        str(options.neighbors) if options.reduction == "umap" else "",
        f"{options.cluster_min}, {options.samples_min}",
        options.method,
    ]
    command = [sys.executable, "-m", "benchmarks.discovery_parameters", msgspec.json.encode(trial).decode()]
    try:
        run = subprocess.run(command, stdout=subprocess.PIPE, timeout=seconds, check=True)
    except subprocess.TimeoutExpired:
        rest = len(COLUMNS) - len(what) - 2
        return [str(trial.size), *what, f"not within {seconds:.0f} s", *[""] * rest]
    row = msgspec.json.decode(run.stdout, type=Row)
    return [
        f"{trial.size} ({row.distinct})",
        *what,
        str(row.topics),
        f"{row.outliers:.2f}",
        f"{row.coherence:.3f}",
        f"{row.diversity:.2f}",
        "" if row.ami is None else f"{row.ami:.3f}",
        f"{row.seconds:.0f}",
        f"{row.cpu_seconds:.0f}",
        f"{row.peak_mib:.0f}",
    ]


# one setting, in its own process


def measure(trial: Trial) -> Row:
    """A fit to a window, then to one that is a little later."""
    documents = dated(Path(trial.data))
    new = round(trial.size * SHIFT)
    if trial.size + new > len(documents):
        documents = [*undated(Path(trial.data)), *documents]
    else:
        documents = [document for document in documents if document.time < day(trial.end)]
    documents = documents[-trial.size - new :]
    if len(documents) < trial.size:
        sys.exit(f"{trial.data}: {len(documents)} documents, {trial.size} wanted")
    encode = embed if trial.encoder == "WordLlama" else MiniLM()
    plain: list[dict[str, str]] = []
    first = documents[:-new] if trial.size <= PAIRS_MAX else documents[:500]
    for part in (first, documents[new:]):
        begun, cpu = time.perf_counter(), time.process_time()
        window = distinct(part)
        texts = [document.text for document in window]
        model = TopicModel(trial.options).fit(texts, encode(texts))
        words = [found.words for found in model.describe(model.labels_).values()]
        seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu
        labels = ["" if label < 0 else str(label) for label in model.labels_]
        plain.append({document.id: label for document, label in zip(window, labels, strict=True)})
    peak = peak_mib()
    return Row(
        distinct=len(window),
        topics=len(words),
        outliers=float(np.mean(model.labels_ < 0)),
        coherence=coherence(words, texts),
        diversity=diversity(words),
        ami=agreement(*plain)["ami"] if trial.size <= PAIRS_MAX else None,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        peak_mib=peak,
    )


def peak_mib() -> float:
    """Largest resident size of this process; on Linux without what its parent had when it was started."""
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


class MiniLM:
    """The base model of ``--accurate``, without what we trained: mean of the last states, length 1."""

    def __init__(self) -> None:
        from safetensors.numpy import load as load_tensors  # noqa: PLC0415

        from classifiers.encoder import LAYERS, PARTS, BaseWeights, Encoder  # noqa: PLC0415
        from classifiers.storage import TUNED  # noqa: PLC0415

        folder = Path(__file__).parents[1] / "classifiers" / "accurate"
        vocabulary = load_tensors((folder / TUNED).read_bytes())["vocabulary"]
        none = np.zeros((1, 1), dtype=np.float32)
        untuned = {f"{n}.{part}.{ab}": none for n in range(LAYERS) for part in PARTS for ab in "ab"}
        self.encoder = Encoder(BaseWeights.installed(), {**untuned, "vocabulary": vocabulary}, {})
        self.known: dict[str, NDArray[np.float32]] = {}

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """A vector a text, shape (n_texts, 384); each text is read once."""
        for text in texts:
            if text not in self.known:
                state = self.encoder.states(self.encoder.reader(text)).mean(axis=0)
                self.known[text] = state / np.linalg.norm(state)
        return np.stack([self.known[text] for text in texts])


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(measure(msgspec.json.decode(sys.argv[1], type=Trial))))
