"""A worker whose store of articles fails on every write; run by ``python -m``."""

from __future__ import annotations

import sqlite3
from typing import Any

from stream.articles import ArticleStore
from stream.cli import main


def full(_store: ArticleStore, _assessments: Any) -> None:
    """As SQLite does when there is no room."""
    message = "database or disk is full"
    raise sqlite3.OperationalError(message)


if __name__ == "__main__":
    ArticleStore.apply = full  # type: ignore[method-assign, assignment]
    main()
