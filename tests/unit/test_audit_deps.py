"""The dependency audit: what fails the build, what is told, and what happens without a service."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import ROOT

FINE = {"name": "fine", "version": "1.0", "vulns": []}
SKIPPED = {"name": "skipped", "skip_reason": "skipped was not found"}
FIXED = {"name": "hole", "version": "1.0", "vulns": [{"id": "X-1", "fix_versions": ["1.1"]}]}
OPEN = {"name": "open", "version": "2.0", "vulns": [{"id": "X-2", "fix_versions": []}]}


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with a stand-in for pip-audit that prints what ``answer.txt`` holds."""
    spec = importlib.util.spec_from_file_location("audit_deps", ROOT / ".ci" / "audit_deps.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    code = f"print(open({str(tmp_path / 'answer.txt')!r}).read()); import sys; sys.exit('no route to host')"
    monkeypatch.setattr(module, "TOOL", (sys.executable, "-c", code))
    return module


def audited(script: ModuleType, folder: Path, rows: list[dict[str, Any]] | None) -> int:
    """Exit code for one answer; None is no report at all."""
    (folder / "answer.txt").write_text("" if rows is None else json.dumps({"dependencies": rows}))
    lock = folder / "some.lock"
    lock.write_text(
        "fine==1.0 \\\n    --hash=sha256:ab\nhole==1.0 ; sys_platform == 'win32' \\\n    --hash=sha256:cd\n"
    )
    code: int = script.main([lock])
    return code


@pytest.mark.parametrize(
    ("rows", "code", "told"),
    [
        ([FINE], 0, "1 packages audited, 0 vulnerabilities to fix"),
        ([FINE, FIXED], 1, "hole 1.0: X-1, fixed in 1.1: `make lock`"),
        ([FINE, OPEN], 0, "open 2.0: X-2, no fixed version yet"),
        ([SKIPPED], 0, "NOT AUDITED, the vulnerability service cannot be reached: skipped was not found"),
        (None, 0, "NOT AUDITED, the vulnerability service cannot be reached: no route to host"),
    ],
    ids=["fine", "with a fix", "without a fix", "unknown there", "no report"],
)
def test_a_known_vulnerability_with_a_fix_fails_and_silence_is_told(
    script: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    rows: list[dict[str, Any]] | None,
    code: int,
    told: str,
) -> None:
    """What was not looked up never passes for fine in silence."""
    assert audited(script, tmp_path, rows) == code
    assert told in capsys.readouterr().out.splitlines()


def test_every_pin_of_the_locks_is_audited(script: ModuleType) -> None:
    """All entries, those for other platforms and Python versions too."""
    locks = sorted(ROOT.glob("requirements*.lock"))
    entries = {
        line.split()[0]
        for lock in locks
        for line in lock.read_text().splitlines()
        if line and line[0] not in " #"
    }
    assert len(entries) > 100
    assert set(script.pins(locks)) == entries


def test_what_could_not_be_looked_up_is_told(script: ModuleType) -> None:
    """A package that the service does not know is no reason to fail, and does not count as audited."""
    assert script.judge([FINE, SKIPPED]) == (
        0,
        ["not looked up: skipped", "1 packages audited, 0 vulnerabilities to fix"],
    )


def test_several_versions_of_a_package_are_asked_for_one_by_one(script: ModuleType) -> None:
    """pip-audit refuses a list with two versions of a package, which a lock may hold."""
    wanted = ["a==1", "b==1", "b==2", "b==3", "c==1", "c==2"]
    assert script.rounds(wanted) == [["a==1", "b==1", "c==1"], ["b==2", "c==2"], ["b==3"]]


def test_an_audit_that_breaks_off_fails(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The service answered once: what comes then is no missing network."""
    answers = iter([[FINE]])

    def look_up(_wanted: list[str]) -> list[dict[str, Any]]:
        for answer in answers:
            return answer
        message = "refused"
        raise script.NotAudited(message)

    monkeypatch.setattr(script, "look_up", look_up)
    assert audited(script, tmp_path, []) == 1
    assert "NOT AUDITED, the audit broke off: refused" in capsys.readouterr().out
