"""Looks up every pinned package for known vulnerabilities, with pip-audit: ``make audit-deps``.

Exit code 1 for a vulnerability that a newer version fixes. One without a fix is told and does not fail.
pip-audit counts what it could not look up as fine; here that is told. Where the service does not answer, as
on a machine that reaches package registries only, that is said after one question, and nothing fails.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

TOOL = (sys.executable, "-m", "pip_audit")
OPTIONS = ("--format", "json", "--progress-spinner", "off", "--disable-pip", "--no-deps", "--desc", "off")
PIN = re.compile(r"^[A-Za-z0-9._-]+==[^\s;\\]+", re.MULTILINE)


class NotAudited(Exception):  # noqa: N818 - no error of ours
    """The service did not answer; the message says how."""


def pins(locks: Sequence[Path]) -> list[str]:
    """``name==version`` of every entry, those for other platforms included."""
    return sorted({pin for lock in locks for pin in PIN.findall(lock.read_text(encoding="utf-8"))})


def rounds(wanted: Sequence[str]) -> list[list[str]]:
    """The pins, in lists that hold one version of a package each: pip-audit takes no more at once.

    A lock names several versions of a package where Python versions or platforms need different ones.
    """
    found: list[list[str]] = []
    for _, versions in groupby(wanted, key=lambda pin: pin.partition("==")[0]):
        for number, pin in enumerate(versions):
            if number == len(found):
                found.append([])
            found[number].append(pin)
    return found


def look_up(wanted: Sequence[str]) -> list[dict[str, Any]]:
    """What pip-audit knows about these pins.

    Raises
    ------
    NotAudited
        When it gave no report.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(wanted) + "\n")
        file.flush()
        done = subprocess.run(  # noqa: S603 - our own command
            [*TOOL, *OPTIONS, "-r", file.name], capture_output=True, text=True, check=False
        )
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        reason = (done.stderr.strip().splitlines() or ["pip-audit gave no report"])[-1]
        raise NotAudited(reason) from None
    return found


def look_whether_anybody_answers(pin: str) -> None:
    """Ask for one package.

    Raises
    ------
    NotAudited
        When there is no answer, or the package is not known there.
    """
    for row in look_up([pin]):
        if "skip_reason" in row:
            raise NotAudited(row["skip_reason"])


def judge(found: Sequence[dict[str, Any]]) -> tuple[int, list[str]]:
    """Exit code, and what to tell."""
    told, fixable = [], 0
    for row in found:
        for fault in row.get("vulns", ()):
            fixes = ", ".join(fault["fix_versions"])
            fixable += bool(fixes)
            remedy = f"fixed in {fixes}: `make lock`" if fixes else "no fixed version yet"
            told.append(f"{row['name']} {row['version']}: {fault['id']}, {remedy}")
    skipped = [row["name"] for row in found if "skip_reason" in row]
    if skipped:
        told.append(f"not looked up: {', '.join(skipped)}")
    told.append(f"{len(found) - len(skipped)} packages audited, {fixable} vulnerabilities to fix")
    return int(fixable > 0), told


def main(locks: Sequence[Path]) -> int:
    """Audit the lock files; the exit code."""
    wanted = pins(locks)
    try:
        look_whether_anybody_answers(wanted[0])
    except NotAudited as reason:
        print(f"NOT AUDITED, the vulnerability service cannot be reached: {reason}")  # noqa: T201 - a script
        return 0
    try:
        code, told = judge([row for each in rounds(wanted) for row in look_up(each)])
    except NotAudited as reason:
        code, told = 1, [f"NOT AUDITED, the audit broke off: {reason}"]
    for line in told:
        print(line)  # noqa: T201 - a script
    return code


if __name__ == "__main__":
    sys.exit(main([Path(argument) for argument in sys.argv[1:]]))
