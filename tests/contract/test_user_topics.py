"""Topics that a user adds in YAML: what each level can do, and what the shipped topics must not notice."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np
import pytest

from classifiers import embedding
from classifiers.assessor import Assessor
from classifiers.errors import ModelError
from classifiers.storage import load_shipped
from classifiers.training import shipped_examples
from classifiers.user_taxonomy import Labelled, UserTopic, load_user_taxonomy
from classifiers.user_topics import Ability
from tests.conftest import ROOT
from tests.contract.test_classifiers import ODD
from tests.stack import stancewatch

pytestmark = pytest.mark.skipif(
    find_spec("wordllama") is None, reason="wordllama is not installed: make lock"
)

EXAMPLE = ROOT / "classifiers" / "example_topics.yaml"
SHIPPED = ("cloud", "domestic_chips", "export_controls")
ARTICLES = [("", e.text) for e in shipped_examples()[::29]] + [("", text) for text in ODD]
ON_TOPIC = (
    "Lawmakers agreed on rules for artificial intelligence. The law makes developers of large models test"
    " them for risks and report accidents to a new regulator."
)
OFF_TOPIC = "The striker scored twice and the visitors went home with a draw from a cold stadium."


def example() -> UserTopic:
    """The worked example."""
    (topic,) = load_user_taxonomy(EXAMPLE, SHIPPED)
    return topic


def changed(**values: object) -> UserTopic:
    """The worked example with other values."""
    return msgspec.structs.replace(example(), **values)


def with_topics(*topics: UserTopic, screen: bool = True) -> Assessor:
    """The shipped model and these topics."""
    shipped = load_shipped()
    return Assessor(
        shipped.topic_model,
        shipped.stance_model,
        name="test",
        content_hash=shipped.content_hash,
        screen=screen,
        user_topics=topics,
    )


def ability_of(assessor: Assessor) -> Ability:
    """Of the first topic of the user."""
    assert assessor.user is not None
    return assessor.user.abilities[0]


def only(topic: str, assessor: Assessor, text: str) -> list[str]:
    """Stances that a text has toward a topic: one or none."""
    return [d.stance for d in assessor.assess([("", text)])[0] if d.topic == topic]


@pytest.fixture(scope="module")
def worked() -> Assessor:
    """The worked example as a user loads it."""
    return load_shipped(EXAMPLE)


class TestLevels:
    """What a topic can do follows from what is there for it."""

    def test_a_description_alone_detects(self) -> None:
        """Similarity with the description, measured against texts of other things."""
        description = "sports: football matches, teams, players, goals, leagues"
        topic = UserTopic(id="sport", description=description, threshold=0.8)
        assessor = with_topics(topic)
        assert only("sport", assessor, OFF_TOPIC) == ["unclear"]
        assert only("sport", assessor, ON_TOPIC) == []

    def test_one_background_passage_in_twenty_reaches_one_half(self) -> None:
        """That is what the probability of a description means; one in a hundred reaches 0.8."""
        assessor = with_topics(UserTopic(id="sport", description="football matches and their players"))
        texts = [("", e.text) for e in [e for e in shipped_examples() if not e.batch][::2]]
        found = assessor.topic_probabilities(texts)[:, assessor.topics.index("sport")]
        assert np.mean(found >= 0.5) == pytest.approx(0.05, abs=0.02)
        assert np.mean(found >= 0.8) == pytest.approx(0.01, abs=0.01)

    def test_examples_take_over_from_eight_on(self) -> None:
        """Fewer would make a worse model than the description."""
        examples = example().examples
        kinds = [ability_of(with_topics(changed(examples=examples[:n]))).detection for n in (0, 7, 8)]
        assert kinds == ["description", "description", "examples"]

    def test_terms_are_a_gate(self) -> None:
        """Without any of the terms nothing else is asked."""
        topic = changed(terms=(("zeppelin*",),))
        assert only("ai_regulation", with_topics(topic), ON_TOPIC) == []
        assert only("ai_regulation", with_topics(topic), f"{ON_TOPIC} Zeppelins are exempt.")

    def test_a_word_of_every_group_is_needed(self) -> None:
        """As with the shipped topics."""
        both, one = (("artificial",), ("law",)), (("artificial",), ("zeppelin",))
        assert only("ai_regulation", with_topics(changed(terms=both)), ON_TOPIC)
        assert only("ai_regulation", with_topics(changed(terms=one)), ON_TOPIC) == []

    @pytest.mark.parametrize(("term", "opens"), [("rule", False), ("rule*", True), ("RULES", True)])
    def test_terms_are_whole_words_in_any_case(self, term: str, opens: bool) -> None:
        """A star stands for any ending; "ai" does not open at "said"."""
        found = only("ai_regulation", with_topics(changed(terms=((term,),))), ON_TOPIC)
        assert bool(found) == opens

    def test_windows_with_excluded_terms_do_not_count(self) -> None:
        """Near misses that have a word of their own."""
        assessor = with_topics(changed(excluded=("novel",)))
        assert only("ai_regulation", assessor, ON_TOPIC)
        assert only("ai_regulation", assessor, f"In her novel: {ON_TOPIC}") == []

    def test_thresholds_are_those_of_the_file(self) -> None:
        """A high one keeps out what a low one lets in."""
        (found,) = with_topics(example()).topic_probabilities([("", ON_TOPIC)])[:, -1]
        assert 0.5 < found < 1
        assert only("ai_regulation", with_topics(changed(threshold=float(found) + 1e-4)), ON_TOPIC) == []
        assert only("ai_regulation", with_topics(changed(threshold=float(found) - 1e-4)), ON_TOPIC)


class TestStance:
    """Stance needs examples of it."""

    PRAISE = (
        "The new AI law is a welcome success, consumer groups said: the rules protect people and give firms"
        " certainty, and supporters praised the regulator's balanced work."
    )
    BLAME = (
        "The AI Act is a disaster, critics warned: the rules strangle start-ups, are unworkable and drive"
        " developers of artificial intelligence abroad."
    )

    def test_stance_follows_the_examples(self, worked: Assessor) -> None:
        """The worked example knows praise from blame."""
        assert only("ai_regulation", worked, self.PRAISE) == ["favor"]
        assert only("ai_regulation", worked, self.BLAME) == ["against"]

    @pytest.mark.parametrize("kept", [(), ("favor",)])
    def test_without_two_stances_it_is_unclear_with_probability_0(self, kept: tuple[str, ...]) -> None:
        """No guess from other topics' words."""
        examples = tuple(
            e if e.stance in kept else msgspec.structs.replace(e, stance=None) for e in example().examples
        )
        (decisions,) = with_topics(changed(examples=examples)).assess([("", self.BLAME)])
        (decision,) = [d for d in decisions if d.topic == "ai_regulation"]
        assert (decision.stance, decision.stance_probability) == ("unclear", 0.0)
        assert decision.evidence

    def test_a_stance_with_too_few_examples_is_never_given(self) -> None:
        """Four of a kind teach nothing; the other two are given."""
        examples = [e for e in example().examples if e.stance != "neutral"]
        ability = ability_of(with_topics(changed(examples=tuple(examples))))
        assert ability.stances == ("against", "favor")
        few = (*examples, *(Labelled(f"A law, {n}.", "neutral") for n in range(4)))
        ability = ability_of(with_topics(changed(examples=few)))
        assert ability.stances == ("against", "favor")
        assert ability.stance_counts == {"favor": 6, "against": 6, "neutral": 4}

    def test_doubt_is_unclear_below_the_limit_of_the_file(self) -> None:
        """The probability stays the same, the label does not."""
        plain = with_topics(changed(unclear_below=0.0)).assess([("", self.BLAME)])[0][0]
        strict = with_topics(changed(unclear_below=1.0)).assess([("", self.BLAME)])[0][0]
        assert (plain.stance, strict.stance) == ("against", "unclear")
        assert plain.stance_probability == strict.stance_probability


class TestShippedTopics:
    """Nothing changes for them."""

    def test_their_decisions_do_not_change(self, assessor: Assessor, worked: Assessor) -> None:
        """To the last digit, with or without a topic beside them."""
        beside = [[d for d in found if d.topic in SHIPPED] for found in worked.assess(ARTICLES)]
        assert beside == assessor.assess(ARTICLES)

    @pytest.mark.parametrize("terms", [(), (("ai", "law*", "cloud"),), (("ai",), ("law*",))])
    def test_screening_changes_no_decision(self, terms: tuple[tuple[str, ...], ...]) -> None:
        """Also not with user topics, gated or not."""
        topic = changed(terms=terms, threshold=0.1)
        articles = [*ARTICLES, ("", ON_TOPIC), ("", OFF_TOPIC), ("", "ai" * 999 + "x ai " + "law" * 900)]
        assert with_topics(topic).assess(articles) == with_topics(topic, screen=False).assess(articles)

    def test_without_user_topics_no_embedding_is_loaded(self) -> None:
        """The 32 MB and the tokenizer are for those who use them."""
        assert not load_shipped().user


class TestFingerprint:
    """An audit must see that other topics decided."""

    def test_a_taxonomy_changes_the_hash(self, assessor: Assessor, worked: Assessor) -> None:
        """And with it the name in every assessment."""
        assert worked.content_hash != assessor.content_hash
        assert worked.name == f"stancewatch@{worked.content_hash[:12]}"
        assert load_shipped(EXAMPLE).content_hash == worked.content_hash

    def test_every_change_of_an_entry_changes_it(self) -> None:
        """One word, one threshold."""
        topics = [example(), changed(threshold=0.51), changed(description="other words")]
        assert len({with_topics(topic).content_hash for topic in topics}) == 3

    def test_comments_do_not(self, tmp_path: Path, worked: Assessor) -> None:
        """They decide nothing."""
        file = tmp_path / "same.yaml"
        file.write_text(f"# a comment\n{EXAMPLE.read_text()}")
        assert load_shipped(file).content_hash == worked.content_hash


class TestClassifier:
    """What every classifier of ours must do."""

    def test_odd_texts_give_numbers(self, worked: Assessor) -> None:
        """Empty, emoji, other scripts, 1 MB."""
        found = worked.topic_probabilities([("", text) for text in ODD])
        assert np.isfinite(found).all()
        assert ((found >= 0) & (found <= 1)).all()

    def test_no_articles_give_no_decisions(self, worked: Assessor) -> None:
        """A batch may hold other languages only."""
        assert worked.assess([]) == []
        assert worked.assess_supported([("", "Ein neues Gesetz.")], ["de"]) == [[]]

    def test_an_article_keeps_its_decision_in_any_company(self) -> None:
        """Assessing in a batch gives what assessing alone gives."""
        free = with_topics(changed(terms=(), threshold=0.05))
        articles = [*ARTICLES[:12], ("", ON_TOPIC), ("", TestStance.BLAME), ("", "")]
        assert free.assess(articles) == [free.assess([article])[0] for article in articles]

    def test_a_topic_does_not_change_another(self) -> None:
        """Each is fitted on its own."""
        second = UserTopic(id="sport", description="football matches")
        articles = [("", ON_TOPIC), ("", OFF_TOPIC), *ARTICLES[:10]]
        alone, both = with_topics(example()), with_topics(second, example())
        np.testing.assert_array_equal(
            alone.topic_probabilities(articles)[:, alone.topics.index("ai_regulation")],
            both.topic_probabilities(articles)[:, both.topics.index("ai_regulation")],
        )

    def test_loading_twice_gives_the_same(self, worked: Assessor) -> None:
        """No hidden randomness."""
        articles = [("", ON_TOPIC), ("", TestStance.PRAISE), *ARTICLES[:10]]
        assert load_shipped(EXAMPLE).assess(articles) == worked.assess(articles)

    def test_evidence_can_be_found_in_the_article(self, worked: Assessor) -> None:
        """Offsets are exact."""
        text = f"Nothing here.\n{ON_TOPIC}\n{TestStance.BLAME}"
        (decisions,) = worked.assess([("", text)])
        (decision,) = [d for d in decisions if d.topic == "ai_regulation"]
        for sentence in decision.evidence:
            assert text[sentence.start : sentence.end] == sentence.text


class TestCommands:
    """What a user sees."""

    def test_check_tells_what_each_topic_can_do_and_passes_the_worked_example(self) -> None:
        """Shipped ones, the user's, and the cases with their probabilities."""
        done = stancewatch("topics", "check", "--taxonomy", EXAMPLE)
        assert (done.returncode, done.stderr) == (0, "")
        assert "cloud\n  detected by the model; stance: against, favor, neutral" in done.stdout
        assert "ai_regulation\n  detected by 18 examples and the description\n" in done.stdout
        assert (
            "stance: against, favor, neutral (examples: favor 6, against 6, neutral 6; 20 of each are good)"
            in done.stdout
        )
        assert done.stdout.count("passed must") == len(example().must_match + example().must_not_match)

    def test_check_says_what_is_missing_and_fails_with_a_case(self, tmp_path: Path) -> None:
        """Exit code 1, and the probability that went wrong."""
        file = tmp_path / "mine.yaml"
        file.write_text(
            "- id: sport\n  description: football matches and leagues\n"
            "  must_match: [The central bank raised rates.]\n"
        )
        done = stancewatch("topics", "check", STANCEWATCH_TAXONOMY=str(file))
        assert done.returncode == 1
        assert "detected by the description only; 0 of the 8 examples" in done.stdout
        assert "no terms: every article is read in full" in done.stdout
        assert "stance: always unclear; needs 5 examples each of two stances or more" in done.stdout
        assert "FAILED must_match: 0." in done.stdout
        assert done.stdout.endswith("1 case failed\n")

    def test_an_error_in_the_file_is_one_line_and_exit_code_1(self, tmp_path: Path) -> None:
        """No traceback, whatever the command."""
        file = tmp_path / "mine.yaml"
        file.write_text("- id: sport\n")
        for command in (["topics", "check"], ["topics"], ["classify", "--text", "README.md"]):
            done = stancewatch(*command, "--taxonomy", file)
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr == f"error: {file}: entry 1 (sport): missing required field `description`\n"

    def test_topics_lists_them_beside_the_shipped_ones(self) -> None:
        """In the same form."""
        plain, more = stancewatch("topics"), stancewatch("topics", "--taxonomy", EXAMPLE)
        assert [line.split()[0] for line in plain.stdout.splitlines()[:3]] == list(SHIPPED)
        added = set(more.stdout.splitlines()) - set(plain.stdout.splitlines())
        assert [line.split()[0] for line in added] == ["ai_regulation"]

    def test_classify_assigns_them_under_the_changed_name(self, tmp_path: Path, worked: Assessor) -> None:
        """The assessment names what decided."""
        article = tmp_path / "article.txt"
        article.write_text(TestStance.BLAME)
        done = stancewatch("classify", "--text", article, "--taxonomy", EXAMPLE)
        found = json.loads(done.stdout)
        assert found["model"] == worked.name
        assert [(t["topic"], t["stance"]) for t in found["topics"]] == [("ai_regulation", "against")]

    def test_without_the_package_the_remedy_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One line, no ImportError."""
        monkeypatch.setattr(embedding, "find_spec", lambda _: None)
        embedding.Embedding.shared.cache_clear()
        with pytest.raises(ModelError, match="pip install wordllama"):
            load_shipped(EXAMPLE)
