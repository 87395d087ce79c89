"""The folder of the local state belongs to one worker: a second one is refused before it reads anything.

Each table has a RocksDB a partition, which only one process can open; Faust would try for half a minute and
end with a traceback. The lock is the kernel's (``flock``): it goes with the process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from stream.errors import ConfigurationError, StateError

__all__ = ["hold", "holder"]

LOCK = "worker.lock"
PATIENCE_SECONDS = 1.0
"""A look at the lock (:func:`holder`) takes it for a moment."""


def hold(folder: Path) -> int:
    """Take a folder for as long as this process lives.

    Returns
    -------
    int
        The open lock file; closing it gives the folder back.

    Raises
    ------
    ConfigurationError
        When nothing can be written there.
    StateError
        When another process has it.
    """
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        message = f"{folder} cannot be written ({error.strerror}); set STANCEWATCH_DATA_DIR"
        raise ConfigurationError(message) from None
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not _locked(lock, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            message = (
                f"another worker (process {_owner(lock)}) runs with its state in {folder}: stop it, or give"
                " this one a STANCEWATCH_DATA_DIR of its own"
            )
            os.close(lock)
            raise StateError(message)
        time.sleep(0.05)
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock


def holder(folder: Path) -> str:
    """Process id of the worker that has a folder, empty when none has; changes nothing."""
    try:
        lock = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:  # no worker was ever here, or it is not ours to read
        return ""
    try:
        return "" if _locked(lock, fcntl.LOCK_SH) else _owner(lock)
    finally:
        os.close(lock)


def _locked(lock: int, how: int) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner(lock: int) -> str:
    """As the holder wrote it: in a container, of another numbering."""
    return os.pread(lock, 32, 0).decode(errors="replace") or "unknown"
