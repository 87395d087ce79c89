"""Errors of the classifiers."""

from __future__ import annotations

__all__ = ["ClassifierError", "DataError", "ModelError"]


class ClassifierError(Exception):
    """Base of all errors that a user of the classifiers is meant to read."""


class DataError(ClassifierError):
    """Training or evaluation data is missing or malformed."""


class ModelError(ClassifierError):
    """A model file is missing, damaged or of another format."""
