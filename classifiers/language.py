"""Which language a text is in: the classifier must not guess at what it cannot read."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["SUPPORTED", "language_of"]

SUPPORTED = frozenset({"en"})
UNTOLD = frozenset({"", "und", "mul", "mis", "zxx"})
"""Subtags that name no language: undetermined, several, one without a code, none (ISO 639-2)."""
CHARACTERS_READ = 400
LETTERS_MIN = 25
# Frequent in English, rare in other languages: two of them settle it without asking the detector.
_ENGLISH = re.compile(r"\b(the|of|and|to|that|with|from|has|its|said|will|would|their|which|after|been)\b")
# Languages of the press; the full set mistakes short English headlines for rare languages.
_CANDIDATES = (
    "ar bg cs da de el en es fa fi fr he hi hu id it ja ko ms nl no pl pt ro ru sk sv th tr uk vi zh"
)


@lru_cache(maxsize=1)
def _identifier() -> object:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # noqa: PLC0415 - takes 0.2 s

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(_CANDIDATES.split())
    return identifier


def language_of(title: str, text: str, given: str = "") -> str:
    """Language of an article.

    Parameters
    ----------
    title, text : str
        At most the first 400 characters of the two together are read.
    given : str
        BCP 47 tag as the publisher gives it; believed when it names a language.

    Returns
    -------
    str
        Primary language subtag, lower case ("en"); English for a text of less than 25 letters, which tells
        no language apart.

    Examples
    --------
    >>> language_of("Chip curbs", "The ministry said it will tighten the limits.")
    'en'
    >>> language_of("", "Die Regierung verschärft die Ausfuhrkontrollen für Chips nach China.")
    'de'
    >>> language_of("Cloud", "", given="fr-CA")
    'fr'
    """
    told = re.split("[-_]", given.strip())[0].lower()
    if told not in UNTOLD:
        return "en" if told == "eng" else told
    start = f"{title}\n{text}"[:CHARACTERS_READ]
    if len({match.group() for match in _ENGLISH.finditer(start.lower())}) > 1:
        return "en"
    letters = [character for character in start if character.isalpha()]
    if len(letters) < LETTERS_MIN and all(letter.isascii() for letter in letters):
        return "en"
    return str(_identifier().classify(start)[0])  # type: ignore[attr-defined]
