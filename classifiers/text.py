"""Sentences with exact offsets."""

from __future__ import annotations

import html
import re

__all__ = ["clean_feed", "sentence_spans", "sentences"]

_TAG = re.compile(r"<[^>]{0,2000}>?")
_BOILERPLATE = re.compile(
    r"\bRead (?:more|the full)\b.*|\bTo read this article in full.*|The post .{0,200} appeared first on .*"
    r"|Get our (?:morning|free).*|Sign up (?:for|to) .*|Continue reading.*|\(paywall\)|\[(?:…|\.\.\.)\]"
    r"|https?://\S+",
    re.DOTALL,
)
_SPACE = re.compile(r"[ \t\u00a0]+")

# A sentence ends at a line break, or after . ! ? (and closing quotes) before white space and a capital,
# a digit or an opening quote.
# (The first set of characters lets the search skip ahead.)
_BREAK = re.compile(
    r"[\n.!?…。！？](?:(?<=\n)\n*|(?<=[.!?…])[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[A-Z0-9À-Þ])|(?<=[。！？]))"
)
# Behind full stops that do not end a sentence: titles, firms, months, initials such as "U.S." or "J."
_ABBREVIATION = re.compile(
    r"(?<=\b[A-Z]\.)|(?<=\b[A-Za-z]\.[A-Za-z]\.)|(?<=\b(?:Mr|Ms|Dr|Lt|St|Co|vs|No)\.)|(?<=\bapprox\.)"
    r"|(?<=\b(?:Mrs|Gen|Gov|Sen|Rep|Col|Inc|Ltd|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Oct|Nov|Dec|Fig|est)\.)"
    r"|(?<=\b(?:Prof|Corp|Bros|Sept)\.)"
)


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Split a text into sentences.

    Parameters
    ----------
    text : str

    Returns
    -------
    list of (start, end)
        In characters, without surrounding white space; empty for a blank text. The spans do not overlap
        and nothing but white space lies between them.

    Examples
    --------
    >>> text = "Curbs took effect in the U.S. on Friday. Sales fell 3.5%."
    >>> [text[start:end] for start, end in sentence_spans(text)]
    ['Curbs took effect in the U.S. on Friday.', 'Sales fell 3.5%.']
    """
    spans = []
    start = 0
    for gap in _BREAK.finditer(text):
        found = gap.group()
        mark = gap.start() + 1
        if found[0] == "." and "\n" not in found and _ABBREVIATION.match(text, mark):
            continue
        end = gap.start() + len(found.rstrip())
        spans.append((start, end))
        start = gap.end()
    spans.append((start, len(text)))
    return [stripped for span in spans if (stripped := _strip(text, *span))]


def _strip(text: str, start: int, end: int) -> tuple[int, int] | None:
    if start < end and not (text[start].isspace() or text[end - 1].isspace()):
        return start, end
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    end -= len(piece) - len(piece.rstrip())
    return (start, end) if start < end else None


def sentences(text: str) -> list[str]:
    """Sentences of a text; the text itself when it is blank, so that there is always one."""
    return [text[start:end] for start, end in sentence_spans(text)] or [text]


def clean_feed(text: str, words_max: int = 110) -> str:
    """Feed row without mark-up and the feed's own closing lines, for training on real rows."""
    text = _TAG.sub(" ", html.unescape(text))
    text = _SPACE.sub(" ", _BOILERPLATE.sub(" ", text)).strip()
    return " ".join(text.split(" ")[:words_max])
