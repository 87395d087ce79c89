"""The store of articles: what stands in it after any sequence of assessments, its pages, its bounds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest
from aiokafka import TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.answers import Article
from stream.article_feed import ArticleFeed
from stream.articles import ArticleStore, Place, Wanted, microseconds, moment, plain_url
from stream.schema import Assessment, Evidence, TopicAssessment
from stream.settings import load_settings

NOON = datetime(2024, 9, 30, 12, tzinfo=UTC)


def assessment(
    event_id: str = "a",
    *votes: tuple[str, str],
    version: int = 1,
    published_at: datetime = NOON,
    source: str = "Wire",
    url: str = "https://example.org/a",
    title: str = "A title",
    text: str = "A sentence.",
    retracted: bool = False,
) -> Assessment:
    """An assessment with these (topic, stance)."""
    evidence = [Evidence(text=text, start=3, end=3 + len(text))]
    return Assessment(
        event_id=event_id,
        version=version,
        published_at=published_at,
        assessed_at=NOON + timedelta(hours=1),
        source=source,
        url=url,
        title=title,
        model="words@0",
        topics=[
            TopicAssessment(
                topic=topic,
                probability=0.9,
                stance=stance,  # type: ignore[arg-type]
                stance_probability=0.8,
                evidence=evidence,
            )
            for topic, stance in votes
        ],
        retracted=retracted,
    )


CLOUD = ("cloud", "favor")
CHIPS = ("chips", "against")


@pytest.fixture
def store() -> Iterator[ArticleStore]:
    """An empty one, in memory."""
    made = ArticleStore(None, articles_max=1000, days=15)
    yield made
    made.close()


def shown(store: ArticleStore, wanted: Wanted = Wanted()) -> list[tuple[str, str, str]]:  # noqa: B008 - frozen
    """Event id, topic and stance of everything that is found."""
    return [(found.event_id, found.topic, found.stance) for found in store.find(wanted, 1000)]


def test_an_article_is_given_back_as_it_was_assessed(store: ArticleStore) -> None:
    """Every field, once for each topic."""
    store.apply([assessment("a", CLOUD, CHIPS)])
    by_topic = {found.topic: found for found in store.find(Wanted(), 10)}
    assert sorted(by_topic) == ["chips", "cloud"]
    assert by_topic["cloud"] == Article(
        event_id="a",
        title="A title",
        url="https://example.org/a",
        source="Wire",
        published_at=NOON,
        assessed_at=NOON + timedelta(hours=1),
        topic="cloud",
        stance="favor",
        probability=0.9,
        stance_probability=0.8,
        evidence=[Evidence(text="A sentence.", start=3, end=14)],
        model="words@0",
    )


def test_an_assessment_that_is_written_twice_counts_once(store: ArticleStore) -> None:
    """After a crash the worker writes a part of its output again."""
    store.apply([assessment("a", CLOUD), assessment("a", CLOUD)])
    store.apply([assessment("a", CLOUD)])
    assert shown(store) == [("a", "cloud", "favor")]
    assert store.articles == 1


def test_a_higher_version_replaces_and_a_lower_one_is_passed_over(store: ArticleStore) -> None:
    """Also its time moves."""
    later = NOON + timedelta(hours=2)
    store.apply([assessment("a", CLOUD), assessment("a", CHIPS, version=2, published_at=later)])
    store.apply([assessment("a", CLOUD, version=1)])
    assert shown(store) == [("a", "chips", "against")]
    assert store.hourly(None, 2**40, Wanted()) == {
        (microseconds(later) // 3_600_000_000, "chips", "against"): 1
    }


@pytest.mark.parametrize("retracted", [True, False])
def test_a_retraction_or_a_correction_to_off_topic_withdraws(store: ArticleStore, retracted: bool) -> None:
    """And what was withdrawn stays so when an old version is written again."""
    store.apply([assessment("a", CLOUD), assessment("b", CLOUD)])
    store.apply([assessment("a", version=2, retracted=retracted), assessment("a", CLOUD)])
    assert shown(store) == [("b", "cloud", "favor")]
    assert [source.articles for source in store.sources(Wanted())] == [1]


def test_what_is_off_topic_takes_no_room_but_moves_the_clock(store: ArticleStore) -> None:
    """Windows end at the newest published_at of all events, as in the worker's state."""
    store.apply([assessment("a", published_at=NOON + timedelta(days=1))])
    assert (store.articles, shown(store)) == (0, [])
    assert moment(store.latest) == NOON + timedelta(days=1)


def test_filters_narrow_down_together(store: ArticleStore) -> None:
    """Topic, stance, source, event and time; the end of a stretch of time is not in it."""
    store.apply(
        [
            assessment("a", CLOUD, CHIPS),
            assessment("b", ("cloud", "against"), source="Gazette"),
            assessment("c", CLOUD, published_at=NOON + timedelta(hours=1)),
        ]
    )
    noon, one = microseconds(NOON), microseconds(NOON + timedelta(hours=1))

    def ids(**filters: object) -> str:
        return "".join(sorted(row[0] for row in shown(store, Wanted(**filters))))  # type: ignore[arg-type]

    assert ids(topics=("cloud",)) == "abc"
    assert ids(topics=("cloud", "chips")) == "aabc"
    assert ids(stances=("against",)) == "ab"
    assert ids(topics=("cloud",), stances=("against",)) == "b"
    assert ids(sources=("Wire",), topics=("cloud",)) == "ac"
    assert ids(event_id="a") == "aa"
    assert ids(event_id="zz") == ""
    assert ids(since=noon, until=one) == "aab"
    assert ids(since=one) == "c"
    assert ids(sources=("' OR 1=1 --",)) == ""


def test_pages_are_stable_when_articles_come_in_between(store: ArticleStore) -> None:
    """Nothing is shown twice or left out, whatever is added, also at the very moment of a page's end."""
    store.apply([assessment(f"{number:03d}", CLOUD, CHIPS) for number in range(10)])
    before = store.find(Wanted(), 1000)
    read: list[Article] = []
    place = None
    for turn in range(100):
        page = store.find(Wanted(), 3, place)
        read += page
        if len(page) < 3:
            break
        place = Place(microseconds(page[-1].published_at), page[-1].event_id, page[-1].topic)
        store.apply([assessment(f"new-{turn}", CLOUD, published_at=NOON + timedelta(minutes=turn + 1))])
    assert read == before
    assert len(store.find(Wanted(), 1000)) == 20 + turn


def test_only_the_newest_are_kept_whatever_order_they_come_in() -> None:
    """The bound by count, and from when on nothing is missing."""
    store = ArticleStore(None, articles_max=3, days=15)
    store.apply(
        [assessment(str(hour), CLOUD, published_at=NOON + timedelta(hours=hour)) for hour in (4, 1, 3, 5, 2)]
    )
    assert [row[0] for row in shown(store)] == ["5", "4", "3"]
    assert store.articles == 3
    assert moment(store.complete_from or 0) == NOON + timedelta(hours=3)
    store.close()


def test_more_of_one_moment_than_there_is_room_for_are_all_dropped() -> None:
    """The bound holds even then."""
    store = ArticleStore(None, articles_max=3, days=15)
    store.apply([assessment(str(number), CLOUD) for number in range(5)])
    assert store.articles == 0
    assert moment(store.complete_from or 0) > NOON
    store.close()


def test_days_count_back_from_the_newest_article(store: ArticleStore) -> None:
    """As the worker's hours do: replayed history is kept, whatever the clock on the wall says."""
    days = [assessment(str(day), CLOUD, published_at=NOON + timedelta(days=day)) for day in range(20)]
    store.apply(reversed(days))
    assert [row[0] for row in shown(store)] == [str(day) for day in range(19, 4, -1)]
    kept_from = moment(store.complete_from or 0)
    assert kept_from == datetime(2024, 10, 4, 13, tzinfo=UTC)
    store.apply([days[0]])
    assert "0" not in {row[0] for row in shown(store)}


def test_a_store_that_dropped_nothing_is_complete(store: ArticleStore) -> None:
    """None: nothing is missing at all."""
    store.apply([assessment("a", CLOUD)])
    assert store.complete_from is None
    store.miss(NOON)
    assert moment(store.complete_from or 0) == NOON


def test_what_strangers_wrote_is_cut_to_a_length(store: ArticleStore) -> None:
    """A record may have a megabyte; offsets follow the cut."""
    store.apply([assessment("a", CLOUD, title="t" * 10_000, text="s" * 10_000, source="q" * 10_000)])
    (found,) = store.find(Wanted(), 10)
    (sentence,) = found.evidence
    assert (len(found.title), len(found.source), len(sentence.text)) == (300, 200, 1000)
    assert sentence.end - sentence.start == 1000


@pytest.mark.parametrize(
    "url",
    ["https://example.org/a?b=c#d", "http://example.org", "http://[2001:db8::1]:8080/x", "https://ex.org/ü"],
)
def test_plain_addresses_are_kept(url: str) -> None:
    """Http and https."""
    assert plain_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "javascript:alert(1)",
        "JAVASCRIPT:alert(1)",
        "java\nscript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "//example.org/a",
        "/a",
        "https://",
        "https:///a",
        "https://bank.example@evil.example/",
        'https://example.org/"onmouseover=alert(1)',
        "https://example.org/<b>",
        "https://example.org/\x00",
        "https://example.org/\u202egnp",
        "https://[::1",
        "file:///etc/passwd",
        "https://example.org/" + "a" * 2000,
    ],
)
def test_other_addresses_are_no_links(url: str) -> None:
    """They are left out, the article stays."""
    assert plain_url(url) == ""


def test_the_file_has_no_name_and_goes_with_the_process(tmp_path: Path) -> None:
    """Two stores in one folder do not meet, and nothing is left behind."""
    one = ArticleStore(tmp_path / "state", articles_max=10, days=15)
    two = ArticleStore(tmp_path / "state", articles_max=10, days=15)
    one.apply([assessment("a", CLOUD)])
    two.apply([assessment(f"{number}", CLOUD) for number in range(5)])
    assert (len(shown(one)), len(shown(two))) == (1, 5)
    assert list((tmp_path / "state").iterdir()) == []
    one.close()
    two.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        one.find(Wanted(), 1)


def test_a_batch_that_fails_leaves_the_store_as_it_was(store: ArticleStore) -> None:
    """One transaction a batch."""
    store.apply([assessment("a", CLOUD)])
    with pytest.raises(OverflowError):
        store.apply([assessment("b", CLOUD), assessment("c", CLOUD, version=2**64)])
    assert shown(store) == [("a", "cloud", "favor")]


votes = st.lists(
    st.tuples(
        st.sampled_from(["cloud", "chips"]), st.sampled_from(["favor", "against", "neutral", "unclear"])
    ),
    max_size=2,
    unique_by=lambda vote: vote[0],
)
happenings = st.one_of(
    st.tuples(st.sampled_from("abcdefgh"), votes, st.integers(0, 30 * 24)),  # the next version of an event
    st.integers(1, 8),  # a crash: so many of the last records are written again
)


@st.composite
def logs(draw: st.DrawFn) -> list[Assessment]:
    """What workers write: rising versions of each event, and now and then the last records once more."""
    log: list[Assessment] = []
    for happening in draw(st.lists(happenings, max_size=40)):
        if isinstance(happening, int):
            log += log[-happening:]
        else:
            event_id, cast, hour = happening
            version = 1 + max((known.version for known in log if known.event_id == event_id), default=0)
            published_at = NOON + timedelta(hours=hour)
            log.append(assessment(event_id, *cast, version=version, published_at=published_at))
    return log


@given(logs(), st.integers(1, 10), st.integers(1, 7))
@settings(max_examples=150)
def test_from_complete_from_on_the_store_is_the_final_versions(
    history: Sequence[Assessment], articles_max: int, batch: int
) -> None:
    """Any sequence of versions, duplicates and withdrawals, in batches of any size, with tight bounds."""
    store = ArticleStore(None, articles_max=articles_max, days=15)
    final: dict[str, Assessment] = {}
    for begin in range(0, len(history), batch):
        store.apply(history[begin : begin + batch])
    for one in history:
        if one.event_id not in final or one.version >= final[one.event_id].version:
            final[one.event_id] = one
    since = None if store.complete_from is None else moment(store.complete_from)
    expected = {
        (one.event_id, vote.topic, vote.stance)
        for one in final.values()
        for vote in one.topics
        if since is None or one.published_at >= since
    }
    assert set(shown(store, Wanted(since=store.complete_from))) == expected
    assert store.articles <= articles_max
    rows = shown(store)
    assert len(rows) == len(set(rows)) == sum(store.hourly(None, 2**40, Wanted()).values())
    store.close()


async def test_a_partition_whose_tail_is_gone_is_missed_up_to_what_may_be_dated_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Records were deleted and none is left to tell when: they were dated up to a day on."""

    async def ranges(_: object, places: list[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        return dict.fromkeys(places, (7, 7))

    monkeypatch.setattr("stream.article_feed.ranges", ranges)
    feed = ArticleFeed(load_settings(store="memory", future_tolerance_hours=24))
    before = datetime.now(UTC)
    await feed._assign(Mock(), [TopicPartition("news.assessments", 0)])
    ahead = moment(feed.store.complete_from or 0) - before
    feed.store.close()
    assert timedelta(hours=24) <= ahead < timedelta(hours=24, minutes=1)
