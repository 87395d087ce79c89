"""Sentences with exact offsets."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifiers.text import sentence_spans


@given(st.text(max_size=300) | st.text(alphabet="aB. \n!?\"')U.S", max_size=120))
def test_spans_cover_everything_but_white_space(text: str) -> None:
    """No character is lost, none is in two sentences, none carries outer white space."""
    spans = sentence_spans(text)
    assert all(start < end for start, end in spans)
    assert all(left[1] <= right[0] for left, right in pairwise(spans))
    assert all(text[start:end] == text[start:end].strip() for start, end in spans)
    covered = "".join(text[start:end] for start, end in spans)
    assert "".join(covered.split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Mr. Smith of Acme Inc. spoke. He left.", ["Mr. Smith of Acme Inc. spoke.", "He left."]),
        ("Sales rose 3.5% to $1.2bn. Shares fell.", ["Sales rose 3.5% to $1.2bn.", "Shares fell."]),
        ('"It works." They left.', ['"It works."', "They left."]),
        ("First line\nSecond line", ["First line", "Second line"]),
        (" \n ", []),
    ],
)
def test_sentences_of_news(text: str, sentences: list[str]) -> None:
    """Abbreviations, figures and quotes do not break a sentence; line breaks do."""
    assert [text[start:end] for start, end in sentence_spans(text)] == sentences
