"""The model that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from classifiers.assessor import Assessor
    from stream.settings import Settings

__all__ = ["load_assessor"]


def load_assessor(settings: Settings, *, accurate: bool = False) -> Assessor:
    """The model in force: the shipped one or one of the user's, with the topics of the user's taxonomy.

    With `accurate`, an encoder as well: slow, for files.

    Raises
    ------
    ClassifierError
        When the model or the taxonomy cannot be used; one line for the user.
    """
    from classifiers.storage import load, load_shipped  # noqa: PLC0415 - keeps --help fast

    if settings.model:
        return load(settings.model, settings.taxonomy, accurate=accurate)
    return load_shipped(settings.taxonomy, accurate=accurate)
