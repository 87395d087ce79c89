"""The page in a real Chromium: what it shows, use by keyboard and by screen readers, its failures."""

from __future__ import annotations

import re
from collections.abc import Callable

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page, Route, expect

from stream.api import HostHealth
from stream.schema import Assessment
from tests.browser.conftest import Server, Visit
from tests.unit.test_api import hours_ago, state_of
from tests.unit.test_articles import NOON, assessment

Visitor = Callable[..., Visit]
AXE_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
FAVOR, AGAINST, NEUTRAL = ("cloud", "favor"), ("cloud", "against"), ("chips", "neutral")


def some_articles() -> list[Assessment]:
    """A few on two topics, from two sources, over three days."""
    return [
        hours_ago(
            0, "a", FAVOR, NEUTRAL, title="Cloud prices fall", text="Customers welcome the lower prices."
        ),
        hours_ago(1, "b", AGAINST, title="Outage at a cloud provider", source="Gazette"),
        hours_ago(5, "c", FAVOR, title="A third data centre opens", url=""),
        hours_ago(60, "d", ("chips", "unclear"), title="A fab changes hands", source="Gazette"),
    ]


def poll(page: Page) -> None:
    """Wait until the page has asked anew and shown the answer; then its next look is due in five seconds."""
    # What was under way is given up in the same step, so whoever fills the place again is the new round.
    page.evaluate(
        "document.getElementById('updated').textContent = '–';"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    expect(page.locator("#updated")).not_to_have_text("–")


def titles(page: Page) -> list[str]:
    """Of the articles shown."""
    return [
        text.replace(" (opens in a new tab)", "") for text in page.locator("#articles h3").all_text_contents()
    ]


def row(page: Page, topic: str) -> list[str]:
    """Cells of a topic with text in them."""
    cells = page.locator("#topics tbody tr", has=page.get_by_role("link", name=topic)).locator(
        "td:not(.wide)"
    )
    return cells.all_text_contents()


def test_the_story_is_told_at_a_glance(server: Server, visit: Visitor) -> None:
    """Counts, change, net stance, trend, articles with evidence, health: each as the API has it."""
    server.take(*some_articles())
    server.host.entries = state_of(
        (0, 0, "cloud", "favor"),
        (0, 1, "cloud", "against"),
        (0, 5, "cloud", "favor"),
        (1, 0, "chips", "neutral"),
        (1, 30, "cloud", "against"),
    )
    server.host.told = HostHealth("worker", "", lag=12, last_event=NOON.timestamp(), dead_letters=3)
    page = visit().open("/?window=24h")
    assert row(page, "cloud") == ["3", "+2", "2", "1", "0", "0", "+0.33", "▲ 1.33"]
    assert row(page, "chips") == ["1", "+1", "0", "0", "1", "0", "–", ""]
    expect(page.locator("#topics caption")).to_have_text("Exact counts. Compared with the 24 hours before.")
    chart = page.get_by_role(
        "img", name=re.compile("cloud: 3 articles, 2 in favor, 1 against, net stance plus")
    )
    assert chart.locator(".fill-favor").count() == 2
    assert chart.locator(".fill-against").count() == 1
    assert titles(page) == ["Cloud prices fall", "Outage at a cloud provider", "A third data centre opens"]
    first = page.locator("#articles article").first
    assert first.locator("mark").all_text_contents() == ["Customers welcome the lower prices."] * 2
    assert first.locator("time").get_attribute("datetime") == "2024-09-30T12:00:00Z"
    assert "stance 80 %, topic 90 %" in first.inner_text()
    expect(page.locator("#state")).to_have_text("✓ ready")
    assert [page.locator(f"#{name}").inner_text() for name in ("lag", "letters")] == ["12", "3"]
    expect(page.locator("#last")).to_have_text(re.compile("days ago"))
    expect(page.locator("#covers")).to_contain_text("same figures as /metrics")
    page.get_by_text("The same figures as a table").click()
    expect(page.locator("#trend-table tbody tr")).to_have_count(4)
    expect(page.locator("#emerging")).to_be_hidden()


def test_filters_narrow_down_and_stand_in_the_address(server: Server, visit: Visitor) -> None:
    """By topic, stance, window and source; back and forth; the address of an alert leads to the same."""
    server.take(*some_articles())
    one = visit()
    page = one.open("/")
    assert len(titles(page)) == 3
    page.get_by_role("link", name="chips").first.click()
    expect(page).to_have_url(re.compile(r"/\?topic=chips$"))
    expect(page.locator("#articles article")).to_have_count(1)
    expect(page.locator("#topics a[aria-current]")).to_have_text("chips")
    assert page.title() == "chips – Stancewatch"
    assert page.locator("#trend figure").count() == 1
    page.get_by_role("radio", name="7 d").check(force=True)
    expect(page).to_have_url(re.compile(r"\?topic=chips&window=7d$"))
    expect(page.locator("#articles article")).to_have_count(2)
    page.get_by_label("Source", exact=True).select_option("Gazette")
    expect(page.locator("#articles article")).to_have_count(1)
    assert titles(page) == ["A fab changes hands"]
    expect(page.locator("#topics caption")).to_contain_text("source: Gazette")
    page.get_by_role("button", name="Clear filters").click()
    expect(page).to_have_url(re.compile(r"/$"))
    page.get_by_label("Stance", exact=True).select_option("against")
    expect(page.locator("#articles article")).to_have_count(1)
    expect(page.locator("#topics th.picked")).to_have_text("▼ against")
    page.go_back()
    expect(page.locator("#articles article")).to_have_count(3)
    page.go_back()
    expect(page.get_by_label("Source", exact=True)).to_have_value("Gazette")
    expect(page.get_by_role("radio", name="7 d")).to_be_checked()
    page = one.open("/?topic=cloud&window=24h")
    expect(page.get_by_label("Topic", exact=True)).to_have_value("cloud")
    assert titles(page) == ["Cloud prices fall", "Outage at a cloud provider", "A third data centre opens"]
    page = one.open("/?event_id=d")
    assert titles(page) == ["A fab changes hands"]


def test_new_articles_come_in_and_are_announced(server: Server, visit: Visitor) -> None:
    """On top, politely; but not while somebody reads: then a button says so."""
    server.take(*some_articles())
    page = visit().open("/")
    live = page.locator("#live")
    assert (live.get_attribute("role"), live.get_attribute("aria-live")) == ("status", "polite")
    expect(live).to_have_text("3 articles shown")
    server.take(hours_ago(0, "x", AGAINST, title="One more"))
    poll(page)
    expect(live).to_have_text("1 new article")
    assert titles(page)[0] == "One more"
    expect(page.locator("article.fresh h3")).to_have_text(re.compile("One more"))
    page.get_by_role("link", name="One more").focus()
    server.take(hours_ago(0, "y", AGAINST, title="And another"))
    poll(page)
    held = page.get_by_role("button", name="Show 1 new article")
    expect(held).to_be_visible()
    assert titles(page)[0] == "One more"
    held.click()
    assert titles(page)[0] == "And another"
    expect(held).to_be_hidden()


def test_a_corrected_article_changes_where_it_stands(server: Server, visit: Visitor) -> None:
    """And the focus stays where it was when figures change."""
    server.take(*some_articles())
    page = visit().open("/")
    page.locator("#topics tbody a", has_text="cloud").focus()
    server.take(assessment("b", FAVOR, version=2, published_at=NOON, title="No outage after all"))
    poll(page)
    expect(page.locator("#articles h3", has_text="No outage after all")).to_be_visible()
    assert "Outage at a cloud provider" not in titles(page)
    assert page.evaluate("document.activeElement.textContent") == "cloud"


def test_older_articles_are_a_button_away(server: Server, visit: Visitor) -> None:
    """Page by page, each once; new ones do not tear the list away."""
    server.take(
        *(hours_ago(number / 10, f"{number:03d}", FAVOR, title=f"Number {number}") for number in range(95))
    )
    page = visit().open("/?window=all")
    expect(page.locator("#articles article")).to_have_count(40)
    page.get_by_role("button", name="Older articles").click()
    expect(page.locator("#articles article")).to_have_count(80)
    server.take(hours_ago(0, "new", FAVOR, title="Newer"))
    poll(page)
    expect(page.get_by_role("button", name="Show 1 new article")).to_be_visible()
    page.get_by_role("button", name="Older articles").click()
    expect(page.locator("#articles article")).to_have_count(95)
    assert titles(page) == [f"Number {number}" for number in range(95)]
    expect(page.get_by_role("button", name="Older articles")).to_be_hidden()


def test_what_strangers_wrote_stays_text(server: Server, visit: Visitor) -> None:
    """Markup, scripts, addresses that are none, text that runs the other way; nothing is run or asked for."""
    nasty = '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>'
    server.take(
        assessment(
            "<i>&", ('"><b>', "favor"), title=nasty, text=nasty, source=nasty, url="javascript:alert(1)"
        ),
        assessment("rtl", FAVOR, title="\u202egnihtemos", url="https://example.org/a?b=<c>"),
    )
    one = visit()
    page = one.open("/?window=all")
    assert nasty in titles(page)
    assert page.locator("#articles blockquote").first.text_content() in (nasty, "A sentence.")
    assert page.locator("#articles a[href^='javascript']").count() == 0
    assert page.locator("#articles h3 a").count() == 0
    assert page.locator("img, article script, article b").count() == 0
    assert page.locator("#articles h3 bdi").count() == 2
    assert page.title() == "Stancewatch"
    page.get_by_label("Topic", exact=True).select_option('"><b>')
    expect(page.locator("#articles article")).to_have_count(1)
    assert all("/api/" in url or url.startswith((f"{server.address}/?", "data:")) for url in one.requests)


def test_evidence_in_the_headline_is_marked_there(server: Server, visit: Visitor) -> None:
    """By its characters, also behind letters that JavaScript counts twice."""
    whole = assessment("a", FAVOR, title="😀 Prices fall. Customers cheer.", text="x")
    row = whole.topics[0]
    sentence = type(row.evidence[0])(text="Customers cheer.", start=15, end=31, field="title")
    server.take(
        type(whole)(
            **{name: getattr(whole, name) for name in whole.__struct_fields__ if name != "topics"},
            topics=[
                type(row)(
                    **{n: getattr(row, n) for n in row.__struct_fields__ if n != "evidence"},
                    evidence=[sentence],
                )
            ],
        )
    )
    page = visit().open("/?window=all")
    assert page.locator("#articles h3 mark").all_text_contents() == ["Customers cheer."]
    expect(page.locator("#articles .vote")).to_contain_text("Decided by the headline.")


def test_an_empty_stream_says_what_to_do(server: Server, visit: Visitor) -> None:
    """And an empty window says where the articles are."""
    page = visit().open("/")
    expect(page.locator("#articles-empty")).to_contain_text("No article has arrived yet.")
    expect(page.locator("#articles-empty code")).to_contain_text("stancewatch replay")
    expect(page.locator("#topics-when")).to_have_text("")
    server.take(hours_ago(0, "off topic"), *some_articles()[3:])
    poll(page)
    expect(page.locator("#articles-empty")).to_contain_text("Nothing on topic in the last 24 hours.")
    expect(page.locator("#articles-empty")).to_contain_text("newest article is of 30 Sep 2024, 12:00 UTC")
    page.locator("#latest").get_by_role("button", name="Show all time").click()
    expect(page.locator("#articles article")).to_have_count(1)


def test_a_server_that_goes_away_is_told_and_comes_back(server: Server, visit: Visitor) -> None:
    """The last figures stay, marked as old."""
    server.take(*some_articles())
    one = visit()
    page = one.open("/")
    page.route("**/api/v1/**", lambda route: route.abort())
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The server does not answer.Everything shown is as of")
    expect(page.locator("#state")).to_have_text("✕ no answer")
    expect(page.locator("section.stale")).to_have_count(4)
    assert len(titles(page)) == 3
    page.unroute("**/api/v1/**")
    poll(page)
    expect(alert).to_be_hidden()
    expect(page.locator("#state")).to_have_text("✓ ready")
    assert all("ERR_FAILED" in complaint for complaint in one.complaints)
    one.complaints.clear()


def test_a_fault_of_the_store_and_a_worker_that_is_not_ready_are_told(server: Server, visit: Visitor) -> None:
    """In words, on the page."""
    server.host.told = HostHealth("serve", "recovering state from the changelog")
    server.feed.fault = "articles: database or disk is full"
    page = visit().open("/")
    expect(page.get_by_role("alert")).to_contain_text("articles: database or disk is full")
    expect(page.locator("#state")).to_have_text("✕ not ready: recovering state from the changelog")
    expect(page.locator("#letters")).to_have_text("not known")
    server.feed.fault = ""
    poll(page)
    expect(page.get_by_role("alert")).to_be_hidden()


def test_an_address_that_asks_for_something_unknown_is_told(server: Server, visit: Visitor) -> None:
    """With what was expected and a way out."""
    server.take(*some_articles())
    one = visit()
    one.page.goto(f"{one.base}/?window=2h")
    expect(one.page.get_by_role("alert")).to_contain_text("window: got '2h', expected 1h, 24h, 7d, all")
    one.page.get_by_role("alert").get_by_role("button", name="Clear filters").click()
    expect(one.page.locator("#articles article")).to_have_count(3)
    expect(one.page.get_by_role("alert")).to_be_hidden()
    assert all("400 (Bad Request)" in complaint for complaint in one.complaints)
    one.complaints.clear()


def test_a_hidden_page_does_not_ask(server: Server, visit: Visitor) -> None:
    """Nothing in a minute; at once when it is seen again, and then every five seconds."""
    server.take(*some_articles())
    one = visit()
    one.page.clock.install()
    page = one.open("/")
    hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true})"
    page.evaluate(f"{hide % 'true'}; document.dispatchEvent(new Event('visibilitychange'))")
    asked = len(one.requests)
    page.clock.run_for(60_000)
    assert len(one.requests) == asked
    page.evaluate(hide % "false")
    poll(page)
    with page.expect_response(lambda answer: "/api/v1/health" in answer.url):
        page.clock.run_for(5_100)


def test_emerging_topics_are_shown_where_the_server_has_them(visit: Visitor) -> None:
    """Found in the API's own description."""

    def described(route: Route) -> None:
        answer = route.fetch().json()
        answer["paths"]["/api/v1/emerging"] = {}
        route.fulfill(json=answer)

    topic = {
        "id": "e1",
        "label": "quantum export",
        "words": ["qubit", "licence"],
        "signal": "new",
        "documents": 12,
        "growth": 3.5,
    }
    one = visit()
    one.page.route("**/api/openapi.json", described)
    one.page.route("**/api/v1/emerging", lambda route: route.fulfill(json={"topics": [topic]}))
    page = one.open("/")
    expect(page.locator("#emerging")).to_be_visible()
    cells = page.locator("#emerging tbody tr").inner_text().split("\t")
    assert cells == ["quantum export", "qubit, licence", "new", "12", "3.5"]


def test_everything_is_reached_by_keyboard_and_seen_to_be(server: Server, visit: Visitor) -> None:
    """Tab through the page: an order that makes sense, a focus that is seen, arrows within the windows."""
    server.take(*some_articles())
    page = visit().open("/")
    reached = []
    for _ in range(14):
        page.keyboard.press("Tab")
        name, width = page.evaluate(
            """() => {
                const at = document.activeElement;
                const seen = at.type === "radio" ? at.nextElementSibling : at;
                return [at.name || at.textContent.trim(), parseFloat(getComputedStyle(seen).outlineWidth)];
            }"""
        )
        assert width >= 2, name
        reached.append(name)
    assert reached[:9] == [
        "Skip to the latest articles", "window", "topic", "stance", "source", "cloud", "chips", "other topic",
        "The same figures as a table",
    ]  # fmt: skip
    assert reached[9].startswith("Cloud prices fall")
    page.locator("input[value='24h']").focus()
    page.keyboard.press("ArrowRight")
    expect(page).to_have_url(re.compile("window=7d"))
    expect(page.get_by_role("radio", name="7 d")).to_be_focused()
    page.locator("#topics tbody a", has_text="chips").focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("topic=chips"))
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#latest")).to_be_focused()


SIGHTS = [("light", 1440), ("dark", 390)]


def broken_rules(page: Page) -> list[tuple[str, list[str]]]:
    """What axe-core finds fault with: its rules for WCAG 2.2 A and AA and its best practices."""
    found = page.evaluate("runOnly => axe.run({runOnly})", AXE_RULES)
    assert len(found["passes"]) > 20
    return [(rule["id"], [node["html"][:150] for node in rule["nodes"]]) for rule in found["violations"]]


def look(page: Page, scheme: str, width: int) -> None:
    """See the page like this."""
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.set_viewport_size({"width": width, "height": 800})


def test_no_rule_of_accessibility_is_broken(server: Server, visit: Visitor) -> None:
    """In a fault and empty, and with articles; light and wide, dark and narrow."""
    one = visit(reduced_motion="reduce")
    server.feed.fault = "articles: database or disk is full"
    page = one.open("/?window=all")
    page.evaluate(AXE_SCRIPT)
    assert broken_rules(page) == []
    server.feed.fault = ""
    server.take(*some_articles())
    page = one.open("/?window=all&topic=cloud&stance=favor")
    page.evaluate(AXE_SCRIPT)
    for scheme, width in SIGHTS:
        look(page, scheme, width)
        assert broken_rules(page) == []


def test_it_fits_every_width_and_both_schemes(server: Server, visit: Visitor) -> None:
    """Nothing runs out of the window or of a table; dark is dark; no motion where none is wanted."""
    server.take(*some_articles())
    server.host.entries = state_of(
        (0, 0, "cloud", "favor"), (1, 30, "a_topic_with_a_long_name_of_its_own", "against")
    )
    page = visit(reduced_motion="reduce").open("/?window=7d")
    for scheme, width in [*SIGHTS, ("light", 1024), ("dark", 768), ("light", 320)]:
        look(page, scheme, width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        colours = re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert (sum(map(int, colours)) < 3 * 60) == (scheme == "dark")
    server.take(hours_ago(0, "new", FAVOR))
    poll(page)
    expect(page.locator("article.fresh").first).to_have_css("animation-name", "none")


def test_the_figures_follow_the_time_of_the_window(server: Server, visit: Visitor) -> None:
    """Counts and articles of each window agree, to the hour."""
    server.take(*(hours_ago(hours, str(hours), FAVOR) for hours in (0, 23, 24, 167, 168)))
    page = visit().open("/?window=1h&topic=cloud")
    for window, count in (("1 h", 1), ("24 h", 2), ("7 d", 4), ("All", 5)):
        page.get_by_role("radio", name=window, exact=True).check(force=True)
        expect(page.locator("#articles article")).to_have_count(count)
        expect(page.locator("#topics tr.chosen td.strong")).to_have_text(str(count))
