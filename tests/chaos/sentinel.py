"""A worker that kills or stops itself once, at one step of the way of an event: ``python -m`` runs it.

``CHAOS_STEP`` names the step (a key of `STEPS`), ``CHAOS_VISIT`` how often it is reached until it happens,
counted while the file ``CHAOS_ARMED`` is there, ``CHAOS_SIGNAL`` what happens: SIGKILL as a crash, or
SIGSTOP, from which SIGCONT wakes it. Texts with the word ``CHAOS_POISON``, if it is set, break the model.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stream.agents import EventProcessor
from stream.app import StateTable
from stream.cli import main
from stream.schema import Event

STEPS: dict[str, tuple[type, str, str]] = {
    "decoded": (EventProcessor, "handle", "before"),
    "judged": (EventProcessor, "classify", "before"),
    "classified": (EventProcessor, "emit", "before"),
    "emitted": (EventProcessor, "emit", "after"),
    "between two writes": (StateTable, "__setitem__", "after"),
    "counted": (StateTable, "wait_for_changelog", "before"),
    "half confirmed": (StateTable, "wait_for_changelog", "after"),
    "confirmed": (EventProcessor, "acknowledge", "before"),
    "acknowledged": (EventProcessor, "acknowledge", "after"),
}
"""In the order in which they are reached; where each is: before or after a call of a method."""


def install(step: str, visit: int, what: signal.Signals, armed: Path) -> None:
    """Send `what` to this process when it is at `step` for the `visit`-th time since the file is there."""
    owner, name, when = STEPS[step]
    original: Callable[..., Any] = getattr(owner, name)
    visits = 0

    def reach(moment: str) -> None:
        nonlocal visits
        if moment == when and armed.exists():
            visits += 1
            if visits == visit:
                os.kill(os.getpid(), what)

    @functools.wraps(original)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        reach("before")
        result = original(*arguments, **options)
        reach("after")
        return result

    @functools.wraps(original)
    async def awaited(*arguments: Any, **options: Any) -> Any:
        reach("before")
        result = await original(*arguments, **options)
        reach("after")
        return result

    setattr(owner, name, awaited if inspect.iscoroutinefunction(original) else wrapped)


def poison(word: str) -> None:
    """Let the model fail on every batch that has a text with this word."""
    original = EventProcessor._judge_texts

    def judge_texts(self: EventProcessor, events: Sequence[Event]) -> Any:
        if any(word in event.title for event in events):
            message = "the model broke"
            raise RuntimeError(message)
        return original(self, events)

    EventProcessor._judge_texts = judge_texts  # type: ignore[method-assign]


if __name__ == "__main__":
    if "CHAOS_STEP" in os.environ:
        install(
            os.environ["CHAOS_STEP"],
            int(os.environ["CHAOS_VISIT"]),
            signal.Signals[os.environ["CHAOS_SIGNAL"]],
            Path(os.environ["CHAOS_ARMED"]),
        )
    if "CHAOS_POISON" in os.environ:
        poison(os.environ["CHAOS_POISON"])
    main()
