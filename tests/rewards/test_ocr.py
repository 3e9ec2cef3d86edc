"""OCR: the rule by hand, and the reader on pictures drawn here and on a photograph of a page."""

from dataclasses import replace

import pytest
import torch
from skimage import data

from mmalign.errors import MissingExtraError
from mmalign.media import Image, Sample
from mmalign.rewards import measured
from mmalign.rewards.cards import find_card, load_reward
from mmalign.rewards.measured import MeasuredReward
from mmalign.rewards.ocr import OcrText, text_match
from mmalign.texts import quoted_texts
from tests.rewards.measured_samples import written

STRICT, ANYWHERE = "ocr-ppocr-v6", "ocr-anywhere-ppocr-v6"


@pytest.mark.parametrize(
    ("wanted", "read", "strict", "anywhere"),
    [
        ("hello", "HEL LO", 1.0, 1.0),
        ("hello", "hell", 0.8, 0.8),
        ("hello", "xxhelloyy", 0.2, 1.0),
        ("hello", "zzzzzzzzzz", 0.0, 0.0),
        ("hello", "", 0.0, 0.0),
        ("Straße", "STRASSE", 1.0, 1.0),
    ],
)
def test_the_rule_is_worked_by_hand(wanted: str, read: str, strict: float, anywhere: float) -> None:
    assert text_match(wanted, read) == pytest.approx(strict)
    assert text_match(wanted, read, anywhere=True) == pytest.approx(anywhere)


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ('a sign "Open" and one "Closed"', ["Open", "Closed"]),
        ("a sign “Open”", ["Open"]),
        ("ein Schild „Offen“", ["Offen"]),
        ("une enseigne «Ouvert»", ["Ouvert"]),
        ('a sign ""', [""]),
        ("the dog's 5' leash", []),
        ('only one "quote', []),
    ],
)
def test_every_quoted_text_is_wanted(prompt: str, texts: list[str]) -> None:
    assert quoted_texts(prompt) == texts


@pytest.fixture(scope="module")
def reader() -> MeasuredReward:
    pytest.importorskip("rapidocr", reason="the extra ocr is not installed")
    reward = load_reward(STRICT)
    assert isinstance(reward, OcrText)
    return reward


def test_right_writing_is_above_nearly_right_above_wrong(reader: OcrText) -> None:
    prompt = 'a neon sign that says "Open Late"'
    shown = ("OPEN LATE", "OPEN LAKE", "GARDEN", "")
    score = reader.score([Sample(prompt, written(text)) for text in shown])
    assert score.value.tolist()[:2] == pytest.approx([1.0, 7 / 8])
    assert score.value[2] < 0.3
    assert score.value[3] == 0
    assert score.text is not None
    assert [text.replace(" ", "") for text in score.text] == [text.replace(" ", "") for text in shown]


def test_other_writing_costs_in_one_card_and_not_in_the_other(reader: OcrText) -> None:
    sample = Sample('a shop called "BAKER"', written("BAKER STREET"))
    anywhere = OcrText(find_card(ANYWHERE), **find_card(ANYWHERE).options)
    assert anywhere.score([sample]).value.tolist() == [1.0]
    assert reader.score([sample]).value.tolist() == [0.0]


def test_a_photographed_page_is_read(reader: OcrText) -> None:
    page = torch.tensor(data.page()[:64]).expand(3, -1, -1) / 255
    sample = Sample("", Image(page), {"text": "Region-based segmentation"})
    anywhere = OcrText(find_card(ANYWHERE), anywhere=True, side_px=384)
    score = anywhere.score([replace(sample, prompt="a page of a book")])
    assert score.status == ["ok"]
    assert score.value.tolist() == [1.0]


def test_a_prompt_without_a_text_is_a_status(reader: OcrText) -> None:
    score = reader.score([Sample("a sign", written("A")), Sample('a sign " "', written("A"))])
    assert score.status == ['the prompt quotes no text; write "…" in it', "the quoted text is empty"]
    assert score.value.isnan().all()


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(measured.importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"rapidocr is not installed.*mmalign\[ocr\]"):
        OcrText(find_card(STRICT))
