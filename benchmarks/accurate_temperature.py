"""Temperature of the stance that ``--accurate`` gives, fitted on texts that its encoder has not read.

The encoder's training ends before four batches of paragraphs, so those are left out of the default model too,
and both judge them. But models are surer, and more often right, on written paragraphs than on real rows. So
of the temperature that the mean of both needs there, only what it needs more or less than the default model
counts: that one is calibrated on real rows, out of fold. No development row is looked at.

Command: ``python -m benchmarks.accurate_temperature --texts FOLDER`` (needs the extra `accurate`; 5 minutes)
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.progress import track
from sklearn.metrics import f1_score
from threadpoolctl import threadpool_limits

from classifiers.calibration import temperature_scaling
from classifiers.encoder import mean_opinion
from classifiers.storage import load_shipped
from classifiers.text import sentences
from classifiers.training import real_examples, shipped_examples, train_models

UNREAD = ("w15", "w16", "w17", "w18")
REPETITIONS = 200


def main() -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=Path, required=True, help="folder with technews-2023")
    options = parser.parse_args()
    examples = shipped_examples()
    unread = [example for example in examples if example.batch in UNREAD]
    known = [example for example in examples if example.batch not in UNREAD]
    _, stance_model = train_models([*known, *real_examples(options.texts, "train")], progress=print)
    encoder = load_shipped(accurate=True).encoder
    assert encoder is not None  # noqa: S101 - asked for
    pairs = [(row.text, topic, label) for row in unread for topic, label in row.stance.items()]
    truth = np.searchsorted(stance_model.classes_, [label for _, _, label in pairs])
    judged = stance_model.predict_proba([p[0] for p in pairs], [p[1] for p in pairs])
    with threadpool_limits(limits=1):
        read = np.array(
            [
                encoder.stance_scores(" ".join(sentences(text)), topic)
                for text, topic, _ in track(pairs, "encoder")
            ]
        )
    own, mean = np.log(judged + 1e-6), mean_opinion(judged, read)
    for name, scores in (("default", own), ("encoder", read), ("mean", mean)):
        f1 = f1_score(truth, scores.argmax(axis=1), average="macro")
        print(f"{name:8} macro F1 {f1:.3f}, temperature {temperature_scaling(scores, truth):.3f}")
    chooser = np.random.default_rng(0)
    drawn = [chooser.integers(0, len(truth), len(truth)) for _ in range(REPETITIONS)]
    ratios = [
        temperature_scaling(mean[rows], truth[rows]) / temperature_scaling(own[rows], truth[rows])
        for rows in drawn
    ]
    found = temperature_scaling(mean, truth) / temperature_scaling(own, truth)
    print(f"mean against default: {found:.3f} +- {np.std(ratios):.3f} ({len(pairs)} stances)")


if __name__ == "__main__":
    main()
