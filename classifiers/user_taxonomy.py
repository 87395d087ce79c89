"""The topics that a user adds: one YAML file, read and checked before anything is fitted."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml

from classifiers.errors import DataError

__all__ = ["Labelled", "UserTopic", "load_user_taxonomy"]

TOPICS_MAX = 100
_TEXTS = ("not_examples", "must_match", "must_not_match")
_TERM = re.compile(r"(?=.*\w)[^\s*]([^*]*[^\s*])?\*?")
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
# How msgspec names what YAML users call otherwise.
_WORDS = {
    "`object`": "a mapping",
    "`array`": "a list",
    "`str | object`": "a text or a mapping with `text`",
    "`str`": "a string",
    "`float`": "a number",
    "`null`": "nothing",
}


class Labelled(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text of the topic, with the stance toward the topic's object where it is known."""

    text: str
    stance: Literal["favor", "against", "neutral"] | None = None


class UserTopic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of the file.

    Attributes
    ----------
    id : str
        Name in assessments and metrics.
    description : str
        What the topic is about, in a sentence or two; enough to detect it.
    label : str
        Name for people.
    terms : tuple of tuples of str
        Groups of whole words in any case, ``regulat*`` for all that begins so; a text without a word of each
        group does not have the topic. In the file one group may be a plain list.
    excluded : tuple of str
        Words as in a group; a window of five sentences with one of them does not count.
    threshold : float
        Least probability, 0.01 to 1, at which the topic is assigned.
    unclear_below : float
        A stance less probable than this, 0 to 1, is labelled ``unclear``.
    examples : tuple of Labelled
        Texts of the topic; the file may also hold plain strings.
    not_examples : tuple of str
        Near misses.
    must_match, must_not_match : tuple of str
        Cases for ``stancewatch topics check``; never learned from.
    """

    id: Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]{0,39}$")]
    description: str
    label: str = ""
    terms: tuple[tuple[str, ...], ...] = ()
    excluded: tuple[str, ...] = ()
    threshold: Annotated[float, msgspec.Meta(ge=0.01, le=1)] = 0.5
    unclear_below: Share = 0.4
    examples: tuple[Labelled, ...] = ()
    not_examples: tuple[str, ...] = ()
    must_match: tuple[str, ...] = ()
    must_not_match: tuple[str, ...] = ()


def load_user_taxonomy(path: Path, shipped: Collection[str]) -> tuple[UserTopic, ...]:
    """Read a user's topics.

    Parameters
    ----------
    path : Path
        YAML file: a list of entries as :class:`UserTopic`.
    shipped : collection of str
        Ids that are taken by the model.

    Returns
    -------
    tuple of UserTopic
        In the order of the file.

    Raises
    ------
    DataError
        One line: file, entry, what arrived and what is expected.
    """
    rows = _read(path)
    try:
        topics = msgspec.convert(_long_form(rows), tuple[UserTopic, ...])
    except msgspec.ValidationError as error:
        message = f"{path}: {_explained(str(error), rows)}"
        raise DataError(message) from None
    if len(topics) > TOPICS_MAX:
        message = f"{path}: {len(topics)} topics: expected at most {TOPICS_MAX}"
        raise DataError(message)
    for number, topic in enumerate(topics):
        for fault in _faults(topic, [known.id for known in topics[:number]], shipped):
            message = f"{path}: entry {number + 1} ({topic.id}): {fault}"
            raise DataError(message)
    return topics


def _read(path: Path) -> Any:
    try:
        rows = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise DataError(message) from None
    except UnicodeDecodeError as error:
        message = f"{path}: expected UTF-8, got byte {error.object[error.start]:#x} at {error.start}"
        raise DataError(message) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "unreadable"
        message = f"{path}{line}: expected YAML, got an error: {problem}"
        raise DataError(message) from None
    if not isinstance(rows, list):
        kind = "nothing" if rows is None else "a mapping" if isinstance(rows, dict) else repr(rows)[:60]
        message = f"{path}: expected a list of topics, got {kind}"
        raise DataError(message)
    return rows


def _long_form(rows: list[Any]) -> list[Any]:
    """The rows with every plain example as a mapping, and terms as groups."""
    long = []
    for row in rows:
        full = dict(row) if isinstance(row, dict) else row
        if isinstance(row, dict) and isinstance(row.get("examples"), list):
            full["examples"] = [{"text": e} if isinstance(e, str) else e for e in row["examples"]]
        if isinstance(row, dict) and _is_flat(row.get("terms")):
            full["terms"] = [row["terms"]]
        long.append(full)
    return long


def _is_flat(terms: Any) -> bool:
    return isinstance(terms, list) and bool(terms) and not any(isinstance(term, list) for term in terms)


def _explained(error: str, rows: list[Any]) -> str:
    """An error of msgspec with the entry's number and id, and the value that arrived."""
    problem, _, place = error.partition(" - at `$")
    found = re.match(r"\[(\d+)\](?:\.(.*))?`$", place)
    if not found:
        return error
    value = rows[int(found[1])]
    name = value.get("id") if isinstance(value, dict) else None
    path = found[2] or ""
    if isinstance(value, dict) and _is_flat(value.get("terms")):
        path = path.replace("terms[0][", "terms[")
    where = f"entry {int(found[1]) + 1}" + (f" ({str(name)[:60]})" if name is not None else "")
    problem = problem.removeprefix("Object ").removeprefix("contains ")
    if problem.startswith("Invalid enum value"):
        problem = "Expected one of favor, against, neutral"
    problem = re.sub(r", got `[^`]*`$", "", problem)
    for technical, plain in _WORDS.items():
        problem = problem.replace(technical, plain)
    problem = problem.replace("Expected", "expected")
    if "field `" in problem:
        return f"{where}: {f'{path}: ' if path else ''}{problem}"
    for key in re.findall(r"\w+", path):
        value = (
            value[int(key)] if isinstance(value, list) else value[key] if isinstance(value, dict) else value
        )
    return f"{where}: {f'{path}: ' if path else ''}got {repr(value)[:60]}: {problem}"


def _faults(topic: UserTopic, before: list[str], shipped: Collection[str]) -> Iterator[str]:
    """What is wrong with an entry of the right form."""
    if topic.id in shipped:
        yield f"id: got {topic.id!r}: expected an id that no shipped topic has"
    if topic.id in before:
        yield f"id: got {topic.id!r}: expected another one, entry {before.index(topic.id) + 1} has it"
    if topic.id == "other":
        yield "id: got 'other': expected another one, the metrics use it for their overflow"
    texts = {
        "description": topic.description,
        **{f"examples[{i}]": example.text for i, example in enumerate(topic.examples)},
        **{f"{name}[{i}]": text for name in _TEXTS for i, text in enumerate(getattr(topic, name))},
    }
    yield from (f"{where}: got {text!r}: expected words" for where, text in texts.items() if not text.strip())
    if not all(topic.terms):
        yield "terms: got an empty group: expected at least one word in each"
    for name, groups in {"terms": topic.terms, "excluded": (topic.excluded,)}.items():
        for term in (term for group in groups for term in group if not _TERM.fullmatch(term)):
            yield f"{name}: got {term!r}: expected a word or words, with * at most at the end"
