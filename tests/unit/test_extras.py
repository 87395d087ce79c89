"""Features of the classifiers that are off by default."""

from __future__ import annotations

import numpy as np
import pytest

from classifiers.errors import DataError
from classifiers.mention import around, mark, split_mention, tokens
from classifiers.stance import StanceClassifier
from classifiers.topic import TopicClassifier

TEXTS = [
    "They praised [[Ann Lee]] and attacked Bob",
    "They attacked [[Bob]] and praised Ann Lee",
    "[[Ann Lee]] met Bob",
] * 4
STANCES = ["favor", "against", "neutral"] * 4
OF_TWO_TOPICS = (
    ["zib wok", "zub wok", "wok"] * 4 + ["mip wok", "mup wok", "wok"] * 4,
    ["x"] * 12 + ["y"] * 12,
    STANCES * 2,
)


def test_a_mention_becomes_one_word_and_its_sides_are_told_apart() -> None:
    """The same words left and right of the mention are other features."""
    text = mark("They praised Ann Lee and attacked Bob", 13, 20)
    assert text == TEXTS[0]
    masked, named = split_mention(text)
    assert named == "m_ann m_lee"
    assert around(tokens(masked), 2) == "l_they l_praised targetmention r_and r_attacked"
    assert around(["nothing", "marked"], 2) == ""


@pytest.mark.parametrize("embedding", [False, True])
def test_a_stance_model_with_all_features_survives_storage(embedding: bool) -> None:
    """What is stored tells which features are on."""
    model = StanceClassifier(chars=True, mention=True, embedding=embedding)
    model.fit(TEXTS, ["x"] * len(TEXTS), STANCES)
    again = StanceClassifier.from_tensors(model.tensors(), model.classes_.tolist(), model.topics_.tolist())
    asked = ["Critics attacked [[Bob]] again", "no mention", ""]
    np.testing.assert_array_equal(
        model.predict_proba(asked, ["x"] * 3), again.predict_proba(asked, ["x"] * 3)
    )
    assert model.predict(asked[:1], ["x"]).tolist() == ["against"]


@pytest.mark.parametrize(("sharing", "told"), [(1.0, True), (0.3, True), (0.0, False)])
def test_topics_learn_from_each_other_as_much_as_is_wanted(sharing: float, told: bool) -> None:
    """'zib' is seen for one topic alone; the stored model shares as the trained one."""
    model = StanceClassifier(sharing=sharing).fit(*OF_TWO_TOPICS)
    again = StanceClassifier.from_tensors(model.tensors(), model.classes_.tolist(), model.topics_.tolist())
    asked = ["zib wok", "zub wok"]
    assert model.predict(asked, ["x", "x"]).tolist() == ["favor", "against"]
    for topic in ("y", "new"):
        scores = again.decision_function(asked, [topic, topic])
        np.testing.assert_array_equal(scores, model.decision_function(asked, [topic, topic]))
        assert (scores[0, 1] > scores[1, 1] + 0.01) == told
        assert np.allclose(scores[0], scores[1]) != told


def test_less_is_shared_with_less_sharing() -> None:
    """What another topic says about a word shrinks with the parameter."""

    def effect(sharing: float) -> float:
        model = StanceClassifier(sharing=sharing).fit(*OF_TWO_TOPICS)
        return float(np.ptp(model.decision_function(["zib wok", "zub wok"], ["y", "y"]), axis=0).max())

    assert 0.5 * effect(1.0) > effect(0.3) > 4 * effect(0.1) > 0


def test_mentions_that_no_text_marks_are_an_error() -> None:
    """Else the parameter would do nothing and nobody would know."""
    with pytest.raises(DataError, match="no text marks"):
        StanceClassifier(mention=True).fit(["a", "b"], ["x", "x"], ["favor", "against"])


@pytest.mark.parametrize("embedding", [False, True])
def test_a_topic_model_with_all_features_survives_storage(embedding: bool) -> None:
    """The same for topics."""
    texts = ["rates and shares rose", "the cup final was lost"] * 3
    model = TopicClassifier(chars=True, embedding=embedding).fit(texts, [["money"], ["sport"]] * 3)
    again = TopicClassifier.from_tensors(model.tensors(), model.classes_.tolist())
    np.testing.assert_array_equal(model.predict_proba(texts), again.predict_proba(texts))


def test_unlabelled_texts_teach_words_that_no_labelled_text_has() -> None:
    """Self-training: 'keeper' is only seen beside words of sport."""
    labelled = ["rates and shares rose", "the cup final was lost"] * 2
    more = ["shares rose, said the broker", "the keeper lost the cup final"] * 10
    plain = TopicClassifier().fit(labelled, [["money"], ["sport"]] * 2)
    taught = TopicClassifier().fit(labelled, [["money"], ["sport"]] * 2, unlabelled=more)
    assert np.ptp(plain.decision_function(["keeper"])) < 0.1
    assert taught.predict(["keeper broker keeper"]) != []
    scores = dict(zip(taught.classes_, taught.decision_function(["keeper"])[0], strict=True))
    assert scores["sport"] > scores["money"]


def test_the_hinge_loss_trains_a_linear_support_vector_machine() -> None:
    """Texts far on their side of the margin stop to matter; under the log loss they never do."""
    near = ["rates rose", "the cup was lost"]
    labels = [["money"], ["sport"]]
    far = ["rates rose rates rose and rose", "the cup was lost and lost the cup"]

    def change(loss: str) -> float:
        few, many = (
            TopicClassifier(C=100.0, min_df=1, loss=loss).fit(near + far * count, labels * (1 + count))
            for count in (1, 20)
        )
        return float(abs(few.decision_function(far) - many.decision_function(far)).max())

    assert change("squared_hinge") < 0.05
    assert change("log") > 0.5


def test_a_loss_that_is_not_known_is_named() -> None:
    """A typo must not train something else."""
    with pytest.raises(ValueError, match=r"loss: got 'hinge', expected one of log, squared_hinge"):
        TopicClassifier(loss="hinge").fit(["a", "b"], [["x"], []])
