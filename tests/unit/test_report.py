"""Tables of the evaluation report, worked by hand on five made-up rows."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest

from classifiers import pictures
from classifiers.analysis import Training, analyse, threshold_curve
from classifiers.baselines import System, linear_svm, most_frequent, rules
from classifiers.calibration import calibration_error, reliability, risk_curve
from classifiers.comparison import compare
from classifiers.decisions import StanceLabel, TopicDecision
from classifiers.intervals import interval, macro_f1, micro_f1, resampled
from classifiers.mistakes import (
    Row,
    by_combination,
    by_length,
    by_source,
    missed_topics,
    stance_confusion,
    stance_mistakes,
    topic_confusion,
    wrong_topics,
)
from classifiers.report import markdown
from classifiers.training import Example, data_hash

QUOTED = "zyxwordofapublisher"

# a: right. b: one topic missed, the other flipped. c: off topic, but something is found.
# d: neutral taken for favor. e: favor taken for neutral, and a second topic wrongly found.
ROWS = [
    Row("a", {"cloud": "favor"}, {"cloud": "favor"}, "x.com", 10),
    Row("b", {"cloud": "against", "chips": "neutral"}, {"cloud": "favor"}, "x.com", 30),
    Row("c", {}, {"chips": "unclear"}, "y.com", 60),
    Row("d", {"chips": "neutral"}, {"chips": "favor"}, "", 300),
    Row("e", {"cloud": "favor"}, {"cloud": "neutral", "chips": "against"}, "", 25),
]


class TestMistakes:
    """Errors by kind."""

    def test_found_missed_and_wrongly_found_topics_are_counted(self) -> None:
        """Chips: found in d, missed in b, wrongly found in c and e, left out of a."""
        assert topic_confusion(ROWS, ["cloud", "chips"]) == {
            "cloud": {"found": 3, "missed": 0, "wrongly_found": 0, "left_out": 2},
            "chips": {"found": 1, "missed": 1, "wrongly_found": 2, "left_out": 1},
        }

    def test_missed_topics_name_their_rows(self) -> None:
        """One of the two texts about chips."""
        assert missed_topics(ROWS) == [
            {"topic": "chips", "support": 2, "count": 1, "ids": ["b"]},
            {"topic": "cloud", "support": 3, "count": 0, "ids": []},
        ]

    def test_wrongly_found_topics_tell_what_the_text_is_about(self) -> None:
        """Chips in an off-topic text, and in one about cloud."""
        assert wrong_topics(ROWS) == [
            {"topic": "chips", "truth": "cloud", "count": 1, "ids": ["e"]},
            {"topic": "chips", "truth": "off topic", "count": 1, "ids": ["c"]},
        ]

    def test_combinations_are_told_apart(self) -> None:
        """A text about both topics is another thing than one about each."""
        found = {line["truth"]: line for line in by_combination(ROWS)}
        assert list(found) == ["cloud", "chips", "chips + cloud", "off topic"]
        assert found["cloud"] == {
            "truth": "cloud",
            "rows": 2,
            "right": 1,
            "missed": 0,
            "wrongly_found": 1,
            "ids_missed": [],
        }
        assert (found["chips + cloud"]["right"], found["chips + cloud"]["ids_missed"]) == (0, ["b"])

    def test_stances_are_confused_by_kind(self) -> None:
        """A flip, a side for neutral, neutral for a side; the missed topic is not among them."""
        assert [(e["kind"], e["truth"], e["found"], e["topic"], e["ids"]) for e in stance_mistakes(ROWS)] == [
            ("flip", "against", "favor", "cloud", ["b"]),
            ("side for neutral", "neutral", "favor", "chips", ["d"]),
            ("neutral for side", "favor", "neutral", "cloud", ["e"]),
        ]
        assert [e["support"] for e in stance_mistakes(ROWS)] == [1, 1, 2]

    def test_a_withheld_stance_is_a_kind_of_its_own(self) -> None:
        """Unclear is neither a flip nor neutral."""
        (line,) = stance_mistakes([Row("a", {"cloud": "favor"}, {"cloud": "unclear"})])
        assert (line["kind"], line["count"]) == ("unclear", 1)

    def test_the_confusion_matrix_has_missed_topics_in_its_last_column(self) -> None:
        """Rows favor, against, neutral; columns favor, against, neutral, unclear, missed."""
        assert stance_confusion(ROWS) == [[1, 0, 1, 0, 0], [1, 0, 0, 0, 0], [1, 0, 0, 0, 1]]
        assert stance_confusion(ROWS, "chips") == [[0] * 5, [0] * 5, [1, 0, 0, 0, 1]]

    def test_only_real_rows_have_a_source_and_rare_ones_stand_together(self) -> None:
        """Ten texts make a line of their own."""
        many = [Row(str(i), {}, {}, "often.com") for i in range(10)]
        assert [(line["group"], line["rows"]) for line in by_source([*ROWS, *many])] == [
            ("often.com", 10),
            ("2 others", 3),
        ]
        assert by_source(ROWS[3:]) == []

    def test_errors_by_length_are_summed_within_bounds(self) -> None:
        """25 words are short; b has one of its two topics."""
        lines = {line["group"]: line for line in by_length(ROWS)}
        assert {name: line["rows"] for name, line in lines.items()} == {
            "up to 25": 2,
            "26 to 50": 1,
            "51 to 100": 1,
            "over 200": 1,
        }
        assert lines["26 to 50"] == {
            "group": "26 to 50",
            "rows": 1,
            "topics": 2,
            "missed": 1,
            "wrongly_found": 0,
            "topics_micro_f1": 0.6667,
            "stances": 1,
            "wrong_stances": 1,
            "flips": 1,
            "stance_accuracy": 0.0,
        }


class TestCurves:
    """Reliability, risk and coverage, thresholds."""

    def test_the_calibration_error_is_that_of_the_diagram(self) -> None:
        """The same bins: distances weighted by the counts."""
        confidence, correct = np.array([0.55, 0.95, 0.95, 1.0]), np.array([True, True, False, False])
        bins = reliability(confidence, correct)
        assert [line["count"] for line in bins] == [1, 3]
        by_hand = sum(line["count"] / 4 * abs(line["accuracy"] - line["confidence"]) for line in bins)
        assert calibration_error(confidence, correct) == pytest.approx(by_hand, abs=1e-4)

    def test_risk_falls_when_doubtful_decisions_are_withheld(self) -> None:
        """Equal confidences are withheld together: 1/4 x 0 + 2/4 x 1/3 + 1/4 x 1/2."""
        curve, area = risk_curve(np.array([0.5, 0.9, 0.7, 0.7]), np.array([False, True, False, True]))
        assert [(p["coverage"], p["risk"], p["threshold"]) for p in curve] == [
            (0.25, 0.0, 0.9),
            (0.75, 0.3333, 0.7),
            (1.0, 0.5, 0.5),
        ]
        assert area == pytest.approx(0.5 / 3 + 0.125, abs=1e-4)

    def test_a_long_risk_curve_is_thinned_to_its_ends(self) -> None:
        """The report must not grow with the data."""
        curve, _ = risk_curve(np.linspace(0, 1, 5000), np.ones(5000, dtype=bool))
        assert (len(curve), curve[-1]["coverage"]) == (100, 1.0)

    def test_precision_and_recall_at_a_threshold(self) -> None:
        """At 0.5 two are found, one of them true, of two true ones."""
        curve = threshold_curve(np.array([0.9, 0.6, 0.3]), np.array([True, False, True]))
        at = {point["threshold"]: point for point in curve}
        assert at[0.5] == {"threshold": 0.5, "precision": 0.5, "recall": 0.5, "f1": 0.5}
        assert at[0.98] == {"threshold": 0.98, "precision": None, "recall": 0.0, "f1": 0.0}


class TestComparison:
    """The model beside others."""

    MODEL = System("this model", [row.found for row in ROWS], [row.found for row in ROWS])

    def test_figures_are_those_of_the_counts(self) -> None:
        """Topics: 4 right, 2 wrong, 1 missed. Stance where found: favor F1 2/5, the others 0."""
        (line,) = compare(ROWS, [self.MODEL])
        assert line["topics_micro_f1"]["value"] == pytest.approx(8 / 11, abs=1e-4)
        assert line["stance_macro_f1"]["value"] == pytest.approx(2 / 5 / 3, abs=1e-4)
        assert line["stance_macro_f1_with_misses"]["value"] == pytest.approx(2 / 5 / 3, abs=1e-4)

    def test_all_are_asked_where_the_model_found_the_topic(self) -> None:
        """A method that knows every stance given the topic, and finds no topic by itself."""
        knowing = System("knowing", [{} for _ in ROWS], [row.truth for row in ROWS])
        line = compare(ROWS, [self.MODEL, knowing])[1]
        assert line["topics_micro_f1"]["value"] == 0
        assert line["stance_macro_f1"]["value"] == 1
        assert line["stance_macro_f1_with_misses"]["value"] == 0
        assert line["topics_micro_f1"]["model_minus"]["value"] == pytest.approx(8 / 11, abs=1e-4)

    def test_a_method_is_never_ahead_of_itself(self) -> None:
        """The same resamples: the lead is 0 in each, though both figures vary."""
        lead = compare(ROWS, [self.MODEL, self.MODEL])[1]["topics_micro_f1"]["model_minus"]
        assert lead == {"value": 0.0, "interval": [0.0, 0.0]}

    def test_resampling_is_repeatable_and_keeps_the_number_of_texts(self) -> None:
        """A column of ones always sums to the number of texts."""
        counts = np.array([[1, 0], [1, 1], [1, 5]])
        sums = resampled(counts)
        assert sums.shape == (1000, 2)
        assert (sums[:, 0] == 3).all()
        np.testing.assert_array_equal(sums, resampled(counts))
        low, high = interval(sums[:, 1])
        assert 0 <= low < 6 < high <= 15

    def test_f1_of_nothing_is_zero(self) -> None:
        """No division by zero, no warning."""
        assert micro_f1(np.zeros(3)) == 0
        assert macro_f1(np.zeros((3, 5))) == 0

    def test_baselines_answer_every_row(self) -> None:
        """Most frequent by count; rules by a strong term; the machine by its training texts."""
        rows = [Example("hyperscalers", ("cloud",), {"cloud": "favor"}), Example("a goat", ())]
        assert most_frequent(rows).found == [{"cloud": "favor"}] * 2
        assert most_frequent(rows[1:]).found == [{}]
        assert rules(rows, {"cloud"}).found == [{"cloud": "neutral"}, {}]
        assert rules(rows, {"export_controls"}).found == [{}, {}]
        svm = linear_svm(rows * 10, rows)
        assert (svm.found, svm.given) == ([{"cloud": "favor"}, {}], [{"cloud": "favor"}, {}])


class Fake:
    """An assessor that knows its answers."""

    name = "fake@123"
    topics = ("cloud",)
    thresholds = np.array([0.5])

    def assess(self, documents: list[tuple[str, str]]) -> list[list[TopicDecision]]:
        """`+` in a text is cloud, favor; `-` is cloud, against."""
        stances: list[StanceLabel | None] = [
            "favor" if "+" in text else "against" if "-" in text else None for _, text in documents
        ]
        return [[TopicDecision("cloud", 0.9, stance, 0.8, ())] if stance else [] for stance in stances]

    def topic_probabilities(self, documents: list[tuple[str, str]]) -> Any:
        """As above."""
        return np.array([[0.9 if {"+", "-"} & set(text) else 0.1] for _, text in documents])


EXAMPLES = [
    Example(f"+ {QUOTED}", ("cloud",), {"cloud": "favor"}, id="a"),
    Example(f"- {QUOTED}", ("cloud",), {"cloud": "favor"}, id="c|c"),
    Example(f"+ {QUOTED}", (), {}, id="d"),
    Example(QUOTED, ("cloud",), {"cloud": "neutral"}),
]


def small_report(training: Training | None = None) -> dict[str, Any]:
    """Four texts."""
    return analyse(Fake(), EXAMPLES, training or Training([], ""))  # type: ignore[arg-type]


def test_the_report_is_valid_json_and_the_same_every_time() -> None:
    """Also its floats: JSON has no word for not a number."""
    report = small_report()
    assert json.loads(json.dumps(report, allow_nan=False)) == report == small_report()


def test_neither_json_nor_markdown_quote_a_text() -> None:
    """Texts may be their publishers'; ids and numbers lead to them."""
    report = small_report(Training(EXAMPLES * 5, data_hash(EXAMPLES * 5)))
    assert QUOTED not in json.dumps(report)
    assert QUOTED not in markdown(report)
    assert report["errors"]["missed_topics"][0]["ids"] == ["row 4"]


def test_the_machine_is_trained_on_the_model_s_own_texts_or_left_out() -> None:
    """Another training set would make another comparison."""
    own = small_report(Training(EXAMPLES * 5, data_hash(EXAMPLES * 5)))
    assert [line["name"] for line in own["comparison"]][:2] == ["this model", "TF-IDF + linear SVM"]
    assert own["rows_seen_in_training"] == 4
    assert "**4 of the texts were trained on: figures flatter.**" in markdown(own)
    others = small_report(Training(EXAMPLES, "0" * 64))
    assert "TF-IDF + linear SVM" not in [line["name"] for line in others["comparison"]]
    assert others["rows_seen_in_training"] is None
    assert "SHA-256 000000000000, there are 4 with" in markdown(others)
    assert "left out: the training texts are not at hand." in markdown(small_report())


def test_rows_without_any_topic_make_a_report() -> None:
    """Nothing to divide by, and no stance to draw."""
    report = analyse(Fake(), [Example("quiet")], Training([], ""))  # type: ignore[arg-type]
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert "| stance, calibration error (ECE) | – |" in markdown(report)


def test_the_markdown_is_what_it_was() -> None:
    """The parts that a reader sees first, to the letter."""
    text = markdown(small_report(), ["confusion_topics.png"])
    assert text.startswith(SNAPSHOT_BEGIN)
    assert SNAPSHOT_TOPICS in text
    assert text.endswith(SNAPSHOT_END)


SNAPSHOT_BEGIN = """\
# Evaluation of fake@123

## Scores

4 texts, 3 of them with a topic. Intervals hold 95 % of 1,000 bootstrap resamples of the texts (seed \
2016). All figures but counts are 0 to 1. Rows are named by their id, or their number where they have \
none; texts are not quoted.

| figure | value | 95 % interval |
| --- | ---: | --- |
| topics, micro F1 | 0.667 | 0.000 to 1.000 |
| stance where the topic was found, macro F1 | 0.222 | 0.000 to 0.333 |
| stance with missed topics as misses, macro F1 | 0.222 | 0.000 to 0.333 |
| stance, calibration error (ECE) | 0.300 |  |
| stance, area under the risk-coverage curve | 0.500 |  |"""
SNAPSHOT_TOPICS = """\
## Topics

| topic | precision | recall | F1 | texts | found | missed | wrongly found | rightly left out | \
threshold |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| cloud | 0.667 | 0.667 | 0.667 | 3 | 2 | 1 | 1 | 0 | 0.500 |

![Topics](confusion_topics.png)

"""
SNAPSHOT_END = """\
### Missed topics

| topic | texts | missed | rows |
| --- | ---: | ---: | --- |
| cloud | 3 | 1 | row 4 |

### By true combination of topics

| true topics | texts | all right | a topic missed | a topic wrongly found | rows with a missed topic |
| --- | ---: | ---: | ---: | ---: | --- |
| cloud | 3 | 2 | 1 | 0 | row 4 |
| off topic | 1 | 0 | 0 | 1 |  |

### Wrongly found topics

| found | true topics | texts | rows |
| --- | --- | ---: | --- |
| cloud | off topic | 1 | d |

### Wrong stances of found topics

| kind | true | found | topic | wrong | of | rows |
| --- | --- | --- | --- | ---: | ---: | --- |
| flip | favor | against | cloud | 1 | 2 | c\\|c |

### By length

| words | texts | topics | missed | wrongly found | micro F1 | stances | wrong | flips | accuracy |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| up to 25 | 4 | 3 | 1 | 1 | 0.667 | 2 | 1 | 1 | 0.500 |
"""


def test_missing_matplotlib_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(pictures.PicturesError, match=r"pip install 'stancewatch\[report\]'"):
        pictures.require_matplotlib()


class TestPictures:
    """Only these need matplotlib."""

    @pytest.fixture(autouse=True)
    def _matplotlib(self) -> None:
        pytest.importorskip(
            "matplotlib", reason="pictures need matplotlib: pip install 'stancewatch[report]'"
        )

    def test_every_picture_is_drawn_and_is_the_same_every_time(self) -> None:
        """PNG files without date or version."""
        report = small_report()
        drawn = pictures.draw(report)
        assert set(drawn) == {
            "comparison.png",
            "confusion_stance.png",
            "confusion_topics.png",
            "reliability.png",
            "risk_coverage.png",
            "thresholds.png",
        }
        assert all(content.startswith(b"\x89PNG") for content in drawn.values())
        assert drawn == pictures.draw(report)

    def test_what_would_be_empty_is_not_drawn(self) -> None:
        """Rows without a stance have no risk."""
        report = analyse(Fake(), [Example("quiet")], Training([], ""))  # type: ignore[arg-type]
        assert not {"risk_coverage.png", "confusion_stance.png"} & set(pictures.draw(report))

    def test_the_user_s_own_looks_play_no_role(self) -> None:
        """Settings of matplotlib do not change the files, and are left as they were."""
        import matplotlib  # noqa: ICN001, PLC0415

        usual = pictures.draw(small_report())
        with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
            assert pictures.draw(small_report()) == usual
            assert matplotlib.rcParams["font.size"] == 30
