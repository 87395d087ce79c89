"""The monitored topics, from ``topics.yaml``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources

import yaml

from classifiers.errors import DataError

__all__ = ["Topic", "load_taxonomy"]


@dataclass(frozen=True)
class Topic:
    """A topic as ``topics.yaml`` describes it; see the comments there.

    Attributes
    ----------
    id, description : str
    needs : tuple of tuples of str
        Groups of terms; a text needs one of each group.
    strong, target : tuple of str
        Regular expressions.
    unclear_below : float
        Least stance probability, 0 to 1.
    """

    id: str
    description: str
    needs: tuple[tuple[str, ...], ...]
    strong: tuple[str, ...]
    target: tuple[str, ...]
    unclear_below: float

    @cached_property
    def strong_pattern(self) -> re.Pattern[str]:
        """Any of the strong expressions."""
        return re.compile("|".join(self.strong), re.IGNORECASE)

    @cached_property
    def target_pattern(self) -> re.Pattern[str]:
        """Any of the target expressions, as a whole word."""
        return re.compile("|".join(self.target), re.IGNORECASE)


@lru_cache(maxsize=1)  # both estimators and the assessor ask for it
def load_taxonomy() -> tuple[Topic, ...]:
    """Topics that ship with the package, by id.

    Raises
    ------
    DataError
        When the file does not have the form that its comments describe.
    """
    rows = yaml.safe_load(resources.files("classifiers").joinpath("topics.yaml").read_text(encoding="utf-8"))
    try:
        topics = [
            Topic(
                id=row["id"],
                description=row["description"],
                needs=tuple(tuple(group) for group in row["needs"]),
                strong=tuple(row["strong"]),
                target=tuple(row["target"]),
                unclear_below=float(row["unclear_below"]),
            )
            for row in rows
        ]
    except (KeyError, TypeError, ValueError) as error:
        message = f"topics.yaml: {type(error).__name__}: {error}; see the comments at its top"
        raise DataError(message) from None
    return tuple(sorted(topics, key=lambda topic: topic.id))
