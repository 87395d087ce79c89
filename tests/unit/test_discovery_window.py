"""Copies of one text are told apart from another text on the same matter; the window is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from classifiers.discovery.window import WORDS_MAX, Document, leaders, slide
from tests.headlines import RISING, WIRE, steady, wire

HOUR = 3600.0


class TestLeaders:
    """Near-duplicates collapse to the first one."""

    def test_wire_copies_are_one(self) -> None:
        """Whatever outlets write around them."""
        assert set(leaders([event.title for event in wire()]).tolist()) == {0}

    def test_headlines_of_one_theme_are_not_copies(self) -> None:
        """They share a matter, not a text."""
        titles = [*RISING, *(event.title for event in steady()), WIRE]
        assert leaders(titles).tolist() == list(range(len(titles)))

    def test_a_chain_of_copies_has_one_leader(self) -> None:
        """The second is like the first, the third like the second."""
        words = [
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
        ]
        texts = [" ".join(words[at : at + 9]) for at in range(4)]
        assert leaders(texts).tolist() == [0, 0, 0, 0]
        assert leaders([texts[0], " ".join(words[6:])]).tolist() == [0, 1]

    @given(st.lists(st.text(max_size=40), max_size=12))
    def test_any_text_has_an_earlier_leader_that_leads_itself(self, texts: list[str]) -> None:
        """Empty ones, symbols and emoji too; equal texts have the same one."""
        found = leaders(texts).tolist()
        assert all(first <= at and found[first] == first for at, first in enumerate(found))
        assert all(found[a] == found[b] for a in range(len(texts)) for b in range(a) if texts[a] == texts[b])


class TestSlide:
    """Hours and count bound the window."""

    def test_old_documents_leave_and_later_ones_wait(self) -> None:
        """The window is half open: after its begin, up to its end."""
        documents = [Document(str(hour), hour * HOUR, "x") for hour in range(10)]
        kept = slide(documents, end=8 * HOUR, hours=3, count=100)
        assert [document.id for document in kept] == ["6", "7", "8"]

    def test_the_newest_are_kept(self) -> None:
        """At most so many as are set."""
        documents = [Document(str(hour), hour * HOUR, "x") for hour in range(10)]
        assert [d.id for d in slide(reversed(documents), end=9 * HOUR, hours=99, count=2)] == ["8", "9"]

    def test_a_long_article_is_cut(self) -> None:
        """Its beginning says what it is about."""
        assert len(Document.of("a", 0, ["word " * 500, "more"]).text.split()) == WORDS_MAX
