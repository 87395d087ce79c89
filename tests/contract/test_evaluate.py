"""``stancewatch evaluate --report``, from the command to the files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from classifiers.storage import train_and_save, training_hash
from classifiers.training import data_hash, load_examples, shipped_examples
from stream.cli import app
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a user's own with the rows that it was trained on, and some to measure it on."""
    folder = tmp_path_factory.mktemp("own")
    for name, rows in {"train": shipped_examples()[::12], "test": shipped_examples()[1::60]}.items():
        lines = [json.dumps({"text": e.text, "topics": e.topics, "stance": e.stance}) for e in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    train_and_save(folder / "model", load_examples(folder / "train.jsonl"), data_origin="for the tests")
    return folder


def evaluated(own: Path, report: Path, *flags: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the command prints."""
    monkeypatch.setenv("STANCEWATCH_MODEL", str(own / "model"))
    command = ["evaluate", "--data", str(own / "test.jsonl"), "--report", str(report), *flags]
    shown = CliRunner().invoke(app, command, catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    return shown.stdout


def test_the_report_holds_what_json_prints_and_no_text(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice the same files; the machine is trained on the rows that the user names."""
    flags = ("--no-pictures", "--json", "--trained-on", str(own / "train.jsonl"))
    printed = json.loads(evaluated(own, tmp_path / "a", *flags, monkeypatch=monkeypatch))
    evaluated(own, tmp_path / "b", *flags, monkeypatch=monkeypatch)
    assert json.loads((tmp_path / "a/report.json").read_text()) == printed
    assert printed["comparison"][1]["name"] == "TF-IDF + linear SVM"
    assert printed["rows_seen_in_training"] == 0
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == ["report.json", "report.md"]
    for name in ("report.json", "report.md"):
        content = (tmp_path / "a" / name).read_text()
        assert content == (tmp_path / "b" / name).read_text()
        assert not any(example.text[:40] in content for example in load_examples(own / "test.jsonl"))
    assert "](" not in (tmp_path / "a/report.md").read_text()


def test_without_the_training_texts_the_report_says_so(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped passages are not what this model was made of."""
    evaluated(own, tmp_path, "--no-pictures", monkeypatch=monkeypatch)
    assert "TF-IDF + linear SVM is left out: the training texts" in (tmp_path / "report.md").read_text()


def test_every_picture_in_the_report_lies_beside_it(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links of the Markdown lead to files, and no file is without a link."""
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'stancewatch[report]'")
    evaluated(own, tmp_path, monkeypatch=monkeypatch)
    text = (tmp_path / "report.md").read_text()
    files = [file.name for file in tmp_path.glob("*.png")]
    assert len(files) == 6
    assert all(text.count(f"]({name})") == 1 for name in files)
    assert text.count("![") == len(files)


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path) -> None:
    """One line and exit code 1, before anything is computed."""
    (tmp_path / "taken").touch()
    command = [sys.executable, "-m", "stream.cli", "evaluate", "--no-pictures", "--data", "x.jsonl"]
    shown = subprocess.run(
        [*command, "--report", str(tmp_path / "taken")], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert shown.returncode == 1
    assert shown.stderr == f"error: --report {tmp_path / 'taken'}: expected a folder, it is a file\n"


def test_the_hash_of_the_training_texts_is_read_from_the_model(own: Path) -> None:
    """It names the rows that the baseline must be trained on."""
    assert training_hash(own / "model") == data_hash(load_examples(own / "train.jsonl"))
    assert len(training_hash()) == 64
