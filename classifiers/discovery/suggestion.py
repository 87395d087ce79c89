"""From an emerging topic to an entry of a topics.yaml: what it takes to monitor it from now on."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence

__all__ = ["entry", "slug"]

ID_CHARACTERS = 40
TITLES = 3
TITLE_CHARACTERS = 100


def slug(label: str, taken: Collection[str]) -> str:
    """An id as topics.yaml takes it, that nobody has.

    Examples
    --------
    >>> slug("Sodium-ion, batteries", {"cloud"})
    'sodium_ion_batteries'
    >>> slug("5G", {"topic_5g"})
    'topic_5g_2'
    """
    plain = re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")
    plain = plain if plain[:1].isalpha() else f"topic_{plain}".rstrip("_")
    name, number = plain[:ID_CHARACTERS].rstrip("_"), 1
    while name in taken or name == "other":
        number += 1
        name = f"{plain[: ID_CHARACTERS - 4].rstrip('_')}_{number}"
    return name


def entry(
    topic: str, label: str, words: Sequence[str], examples: Sequence[tuple[str, str]], taken: Collection[str]
) -> str:
    """YAML of one entry, with comments for the analyst.

    Parameters
    ----------
    topic : str
        Id of the emerging topic.
    label : str
    words : sequence of str
    examples : sequence of tuple
        Id and text of the most typical documents.
    taken : collection of str
        Ids of topics that there are.
    """
    titles = [_line(text)[:TITLE_CHARACTERS].strip() for _, text in examples[:TITLES]]
    description = f"{', '.join(words)}: {'; '.join(titles)}" if titles else ", ".join(words)
    lines = [
        f"# suggested from emerging topic {_line(topic)}: read the examples, remove what does not belong",
        f"- id: {slug(label, taken)}",
        f"  label: {_quoted(label)}",
        f"  description: {_quoted(description)}",
        f"  terms: [{', '.join(_quoted(word) for word in words)}]",
    ]
    if examples:
        lines.append("  # for a stance: write stance: favor, against or neutral; 5 each of two are the least")
        lines.append("  examples:")
    for id_, text in examples:
        lines += [f"    # {_line(id_)}", f"    - text: {_quoted(_line(text))}", "      # stance: neutral"]
    return "\n".join(lines) + "\n"


def _line(text: str) -> str:
    """One line without anything that YAML would not take in a comment."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _quoted(text: str) -> str:
    """A YAML scalar: JSON's strings are among them."""
    return json.dumps(_line(text), ensure_ascii=False)
