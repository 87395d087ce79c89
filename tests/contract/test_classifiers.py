"""What every classifier that we ship must do (after river's checks; scikit-learn's own skip text)."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from threadpoolctl import threadpool_limits

from classifiers.assessor import Assessor
from classifiers.calibration import calibration_error
from classifiers.errors import DataError, ModelError
from classifiers.evaluation import evaluate
from classifiers.language import language_of
from classifiers.lexicon import Entry, Lexicon, tokenize
from classifiers.stance import UNREAD_MIN, StanceClassifier
from classifiers.storage import WEIGHTS, load, train_and_save
from classifiers.topic import TopicClassifier
from classifiers.training import Example, load_examples, real_examples, shipped_examples, train_models
from tests.conftest import ROOT

EXAMPLES = shipped_examples()[::10]
ODD = [
    "",
    " ",
    "🙂🚀",
    "zzyzx qwrt",
    "半导体出口管制",
    "ALL CAPS CLOUD OUTAGE",
    "<p>cloud &amp; chips</p>",
    "word " * 200_000,
]


class Case:
    """One classifier with the way to fit it and to ask it."""

    def __init__(
        self, name: str, make: Callable[[], Any], fit: Callable[[Any], Any], ask: Callable[[Any, Any], Any]
    ) -> None:
        self.name = name
        self.make = make
        self.fit = fit
        self.ask = ask


def fit_topic(model: TopicClassifier) -> TopicClassifier:
    """Fit on a part of the shipped passages."""
    return model.fit([e.text for e in EXAMPLES], [e.topics for e in EXAMPLES])


def fit_stance(model: StanceClassifier) -> StanceClassifier:
    """The same for stance."""
    rows = [(e.text, topic, e.stance[topic]) for e in EXAMPLES for topic in e.topics]
    texts, topics, stances = (list(column) for column in zip(*rows, strict=True))
    return model.fit(texts, topics, stances)


CASES = [
    Case("topic", TopicClassifier, fit_topic, lambda model, texts: model.predict_proba(texts)),
    Case(
        "topic by hinge loss",
        lambda: TopicClassifier(C=0.2, loss="squared_hinge"),
        fit_topic,
        lambda model, texts: model.predict_proba(texts),
    ),
    Case(
        "stance",
        StanceClassifier,
        fit_stance,
        lambda model, texts: model.predict_proba(texts, ["cloud"] * len(texts)),
    ),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def fitted(request: pytest.FixtureRequest) -> tuple[Case, Any]:
    """Each classifier, fitted."""
    case: Case = request.param
    return case, case.fit(case.make())


def test_an_unfitted_classifier_says_so(fitted: tuple[Case, Any]) -> None:
    """Asking before fitting is scikit-learn's own error."""
    case, _ = fitted
    with pytest.raises(NotFittedError):
        case.ask(case.make(), ["text"])


def test_a_clone_has_the_parameters_and_nothing_learned(fitted: tuple[Case, Any]) -> None:
    """Grid search depends on it."""
    case, model = fitted
    copied = clone(model)
    assert copied.get_params() == model.get_params()
    with pytest.raises(NotFittedError):
        case.ask(copied, ["text"])


def test_probabilities_have_a_column_a_class_and_lie_in_0_to_1(fitted: tuple[Case, Any]) -> None:
    """Shape and range; stance rows sum to one, topics are independent."""
    case, model = fitted
    found = case.ask(model, [e.text for e in EXAMPLES[:50]])
    assert found.shape == (50, len(model.classes_))
    assert list(model.classes_) == sorted(model.classes_)
    assert ((found >= 0) & (found <= 1)).all()
    if case.name == "stance":
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


def test_odd_texts_do_not_raise_and_give_numbers(fitted: tuple[Case, Any]) -> None:
    """Empty, emoji, unseen words, other scripts, HTML, capitals, 1 MB."""
    case, model = fitted
    assert np.isfinite(case.ask(model, ODD)).all()
    assert case.ask(model, []).shape == (0, len(model.classes_))


def test_a_batch_equals_one_by_one(fitted: tuple[Case, Any]) -> None:
    """The company that a text is in does not change what is said about it."""
    case, model = fitted
    texts = [e.text for e in EXAMPLES[:20]]
    together = case.ask(model, texts)
    alone = np.vstack([case.ask(model, [text]) for text in texts])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-7)


def test_the_same_data_gives_the_same_probabilities(fitted: tuple[Case, Any]) -> None:
    """No hidden randomness, and the input is left alone."""
    case, model = fitted
    texts = [e.text for e in EXAMPLES[:20]]
    before = copy.deepcopy(texts)
    again = case.fit(case.make())
    np.testing.assert_array_equal(case.ask(model, texts), case.ask(again, texts))
    assert texts == before


def test_a_stored_model_knows_how_sure_it_should_be(stored: tuple[Path, Assessor]) -> None:
    """Measured on rows that a part of the training left out; the card says it."""
    folder, assessor = stored
    assert assessor.expected is not None
    probability, unclear = assessor.expected
    assert 1 / 3 <= probability <= 1
    assert 0 <= unclear < 1
    card = (folder / "MODEL_CARD.md").read_text()
    assert f"{probability:.3f}, share of unclear stances {unclear:.3f}" in card
    assert load(folder).expected == assessor.expected


def test_the_card_says_which_code_made_the_model(stored: tuple[Path, Assessor]) -> None:
    """Anybody can put the named modules together and hash them."""
    card = (stored[0] / "MODEL_CARD.md").read_text()
    told = re.search(r"training runs \((.*), one after another\), SHA-256\s+`(\w+)`", card)
    assert told is not None
    code = b"".join((ROOT / "classifiers" / f"{name}.py").read_bytes() for name in told[1].split())
    assert hashlib.sha256(code).hexdigest() == told[2]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Assessor]:
    """A model on disk."""
    folder = tmp_path_factory.mktemp("model")
    return folder, train_and_save(folder, EXAMPLES, data_origin="a part, for the tests")


def test_a_stored_model_says_the_same_to_the_last_bit(stored: tuple[Path, Assessor]) -> None:
    """Weights survive the disk."""
    folder, _ = stored
    with threadpool_limits(limits=1):  # as train_and_save: sums in two threads may differ in the last bit
        topic_model, stance_model = train_models(EXAMPLES)
    texts = [e.text for e in EXAMPLES[:30]]
    loaded = load(folder)
    np.testing.assert_array_equal(loaded.topic_model.predict_proba(texts), topic_model.predict_proba(texts))
    topics = ["export_controls"] * len(texts)
    np.testing.assert_array_equal(
        loaded.stance_model.predict_proba(texts, topics), stance_model.predict_proba(texts, topics)
    )


def test_training_twice_writes_the_same_file(stored: tuple[Path, Assessor], tmp_path: Path) -> None:
    """Same data, same bytes: the content hash names the model."""
    folder, assessor = stored
    again = train_and_save(tmp_path, EXAMPLES, data_origin="a part, for the tests")
    assert (tmp_path / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()
    assert again.content_hash == assessor.content_hash
    assert assessor.content_hash in (folder / "MODEL_CARD.md").read_text()


def test_a_changed_file_is_refused(stored: tuple[Path, Assessor], tmp_path: Path) -> None:
    """One flipped byte in the weights is noticed."""
    folder, _ = stored
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = bytearray((tmp_path / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (tmp_path / WEIGHTS).write_bytes(weights)
    with pytest.raises(ModelError, match="SHA-256"):
        load(tmp_path)


def test_a_missing_model_is_told_with_the_command(tmp_path: Path) -> None:
    """The message says what to run."""
    with pytest.raises(ModelError, match="stancewatch train"):
        load(tmp_path)


@settings(max_examples=60)
@given(title=st.text(max_size=80), text=st.text(max_size=400) | st.sampled_from([e.text for e in EXAMPLES]))
def test_evidence_can_be_found_in_the_article(stored: tuple[Path, Assessor], title: str, text: str) -> None:
    """Offsets are exact in the original text, whatever it holds."""
    article = {"title": title, "text": text}
    for decision in stored[1].assess([(title, text)])[0]:
        assert decision.evidence
        for sentence in decision.evidence:
            assert article[sentence.field][sentence.start : sentence.end] == sentence.text


def test_an_article_keeps_its_decision_in_any_company(stored: tuple[Path, Assessor]) -> None:
    """Assessing in a batch gives what assessing alone gives."""
    articles = [("", e.text) for e in EXAMPLES[:15]] + [("", "")]
    together = stored[1].assess(articles)
    assert together == [stored[1].assess([article])[0] for article in articles]


def test_off_topic_words_of_the_topics_stay_off_topic(assessor: Assessor) -> None:
    """Chips are also fried, clouds also bring rain."""
    articles = [
        ("", "The potato chips were salted by hand and sold at the county fair."),
        ("", "A dark cloud hung over the harbour all morning and the boats stayed in."),
        ("", "Exports of grain through the port rose after the harvest."),
    ]
    assert assessor.assess(articles) == [[], [], []]


def test_evaluation_counts_by_hand() -> None:
    """Two texts: one right topic with a wrong stance, one missed topic."""

    class Fixed:
        name = "fixed"
        topics = ("cloud",)

        def assess(self, documents: list[tuple[str, str]]) -> list[list[Any]]:
            from classifiers.decisions import TopicDecision  # noqa: PLC0415

            found = TopicDecision("cloud", 0.9, "favor", 0.8, ())
            return [[found] if "yes" in text else [] for _, text in documents]

    rows = [Example("yes", ("cloud",), {"cloud": "against"}), Example("no", ("cloud",), {"cloud": "favor"})]
    report = evaluate(Fixed(), rows)  # type: ignore[arg-type]
    assert report["topics"]["cloud"] == {"precision": 1.0, "recall": 0.5, "f1": 0.6667, "support": 2}
    assert report["stance_macro_f1"] == 0
    assert report["stance_calibration_error"] == pytest.approx(0.8)


def test_calibration_error_by_hand() -> None:
    """Two bins: 0.25 x |1 - 0.55| + 0.75 x |1/3 - 0.95|."""
    confidence: NDArray[np.float64] = np.array([0.55, 0.95, 0.95, 0.95])
    correct = np.array([True, True, False, False])
    assert calibration_error(confidence, correct) == pytest.approx(0.25 * 0.45 + 0.75 * (0.95 - 1 / 3))


@pytest.mark.parametrize("line", ["{", '{"text": "x"}', '{"text": "x", "topics": ["a"], "stance": {}}', "[]"])
def test_a_malformed_row_is_named_by_file_and_line(tmp_path: Path, line: str) -> None:
    """Labels are made by hand; the message must lead to the place."""
    file = tmp_path / "rows.jsonl"
    file.write_text(f'{{"text": "x", "topics": [], "stance": {{}}}}\n{line}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:2"):
        load_examples(file)


def test_an_unknown_stance_is_named(tmp_path: Path) -> None:
    """The closed set of stances is told."""
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "x", "topics": ["a"], "stance": {"a": "pro"}}\n')
    with pytest.raises(DataError, match=r"\['pro'\].*favor"):
        load_examples(file)


def test_screening_changes_no_decision(assessor: Assessor) -> None:
    """The gate is a part of the model; looking at it first only saves time."""
    unscreened = Assessor(
        assessor.topic_model,
        assessor.stance_model,
        name="unscreened",
        content_hash=assessor.content_hash,
        screen=False,
    )
    articles = [("", e.text) for e in shipped_examples()[::7]] + [("", text) for text in ODD]
    assert assessor.assess(articles) == unscreened.assess(articles)


def test_a_stance_that_is_not_probable_enough_is_unclear(assessor: Assessor) -> None:
    """Neutral is no bin for doubt: below the taxonomy's limit the label says so."""
    strict = Assessor(
        assessor.topic_model, assessor.stance_model, name="strict", content_hash=assessor.content_hash
    )
    strict.unclear_below = dict.fromkeys(strict.topics, 0.99)
    articles = [("", e.text) for e in EXAMPLES if e.topics][:40]
    plain = [decision for found in assessor.assess(articles) for decision in found]
    doubted = [decision for found in strict.assess(articles) for decision in found]
    assert {decision.stance for decision in doubted if decision.stance_probability < 0.99} == {"unclear"}
    assert [decision.stance_probability for decision in doubted] == [d.stance_probability for d in plain]


class TestLexicon:
    """Patterns of the authored lexicon."""

    LEXICON = Lexicon(
        [
            Entry(1, ("revenue", "...", "rose")),
            Entry(0, ("revenue", "rose", "_", "%")),
            Entry(-2, ("outage*",)),
            Entry(1, ("rose",)),
        ]
    )

    @pytest.mark.parametrize(
        ("sentence", "entries"),
        [
            ("Revenue in the quarter rose.", [0]),
            ("Revenue rose 3 %", [1]),
            ("Outages hit users", [2]),
            ("Revenue one two three four five rose", [3]),
        ],
    )
    def test_the_most_specific_entry_counts(self, sentence: str, entries: list[int]) -> None:
        """Gaps hold up to four words; longer ones hide shorter ones."""
        found = self.LEXICON.resolve(self.LEXICON.find(tokenize(sentence)))
        assert [match.entry for match in found] == entries

    @given(
        patterns=st.lists(
            st.tuples(
                st.sampled_from(["a", "ab", "b", "a*", "b*"]),
                st.lists(st.sampled_from(["a", "ab", "b", "c", "a*", "_", "..."]), max_size=3),
                st.sampled_from(["a", "ab", "b", "a*", "b*"]),
            ),
            min_size=1,
            max_size=4,
        ),
        words=st.lists(st.sampled_from(["a", "ab", "abc", "b", "ba", "c"]), max_size=14),
    )
    @settings(max_examples=300)
    def test_matches_are_those_of_a_regular_expression_tried_everywhere(
        self, patterns: list[tuple[str, list[str], str]], words: list[str]
    ) -> None:
        """However the search comes by its candidates."""
        lexicon = Lexicon([Entry(1, (first, *rest, last)) for first, rest, last in patterns])
        special = {"_": "[^ ]+ ", "...": "(?:[^ ]+ ){0,4}?"}
        expected = set()
        for index, entry in enumerate(lexicon.entries):
            parts = [special.get(part) or f"{part.replace('*', '[^ ]*')} " for part in entry.pattern]
            for start in range(len(words)):
                if found := re.match("".join(parts), "".join(f"{word} " for word in words[start:])):
                    expected.add((start, start + found.group().count(" "), index))
        assert set(lexicon.find(tuple(words))) == expected

    def test_the_shipped_lexicon_has_no_entry_twice(self) -> None:
        """Two polarities of one phrase would be a contradiction."""
        entries = Lexicon.shipped().entries
        assert len({entry.pattern for entry in entries}) == len(entries) > 1_000
        assert {entry.polarity for entry in entries} == {-2, -1, 0, 1, 2}


def test_labels_of_real_rows_hold_no_text() -> None:
    """The texts are their publishers'; only ids and labels may stand here."""
    lines = (ROOT / "classifiers/data/technews_labels.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert all(set(row) == {"id", "topics", "stance", "split", "readings", "unread"} for row in rows)
    assert len({row["id"] for row in rows}) == len(rows) >= 3_576
    assert sum(row["split"] == "dev" for row in rows) >= 1_005
    assert all(row["readings"] > 1 for row in rows)
    assert all(row["unread"] for row in rows if row["split"] == "dev")
    unread = [topic for row in rows if row["unread"] and row["split"] == "train" for topic in row["topics"]]
    assert len(unread) >= UNREAD_MIN


TEXTS = Path(os.environ.get("STANCEWATCH_TEXTS", ROOT.parent / "shared" / "data"))


@pytest.mark.skipif(not (TEXTS / "technews-2023").is_dir(), reason=f"the real rows' texts are not in {TEXTS}")
def test_accuracy_on_real_rows_is_what_the_readme_says(assessor: Assessor) -> None:
    """Development rows of other sources or later dates, never trained on."""
    report = evaluate(assessor, real_examples(TEXTS, "dev"))
    readme = (ROOT / "README.md").read_text()
    assert f"micro F1 {report['topics_micro_f1']:.2f}" in readme
    assert f"macro F1 {report['stance_macro_f1']:.2f}" in readme
    assert f"calibration error {report['stance_calibration_error']:.2f}" in readme


def test_a_report_without_stances_is_valid_json(assessor: Assessor) -> None:
    """Rows that are all off topic have no calibration error; JSON has no word for not a number."""
    report = evaluate(assessor, [Example("A quiet day at the harbour.")])
    assert report["stance_calibration_error"] is None
    assert json.loads(json.dumps(report, allow_nan=False)) == report


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Die Regierung verschärft die Ausfuhrkontrollen für Chips nach China.", "de"),
        ("El gobierno anuncia subsidios para las fábricas de semiconductores", "es"),
        ("Le cloud tombe en panne pour la troisième fois cette année", "fr"),
        ("美国收紧对华芯片出口管制", "zh"),
        ("政府は半導体の輸出規制を強化した", "ja"),
        ("Правительство вводит ограничения на экспорт чипов", "ru"),
        ("AWS outage", "en"),
        ("NVIDIA H20 🙂", "en"),
        ("Chip export curbs backfire, suppliers say", "en"),
    ],
)
def test_languages_are_told_apart(text: str, language: str) -> None:
    """Also in headlines of a few words."""
    assert language_of("", text) == language


@pytest.mark.parametrize(
    "given", [" en", "EN-us ", "eng", "en_GB", "und", "mul", "mis", "zxx", "und-Latn", " ", "-"]
)
def test_english_under_any_tag_is_english(given: str) -> None:
    """Feeds write what they like; a tag that names no language is no answer, so the text is read."""
    assert language_of("Chip curbs", "The ministry said it will tighten the limits.", given) == "en"


@pytest.mark.parametrize(("given", "language"), [("und", "de"), ("de-AT", "de"), ("deu", "deu")])
def test_another_language_stays_another(given: str, language: str) -> None:
    """Told or found."""
    text = "Die Regierung verschärft die Ausfuhrkontrollen für Chips nach China."
    assert language_of("", text, given) == language


def test_written_passages_are_taken_for_english() -> None:
    """A false alarm would drop votes."""
    wrong = [e.text for e in shipped_examples() if language_of("", e.text) != "en"]
    assert len(wrong) <= 2, wrong


def test_too_few_rows_are_told_before_anything_is_trained() -> None:
    """Two rows make no model; the message says how many do."""
    with pytest.raises(DataError, match="2 labelled texts, 1 of them with a topic: at least 20"):
        train_models([Example("a", ("cloud",), {"cloud": "favor"}), Example("b")])
