"""Local judges on small random models of real classes, against those models called plainly."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from mmalign.errors import ConfigError
from mmalign.media import Audio, Image, Video
from mmalign.rewards import vlm_model
from mmalign.rewards.cards import find_card
from mmalign.rewards.vlm_judge import Question
from mmalign.rewards.vlm_model import LocalJudge
from tests.rewards.small_judges import llava, qwen2_audio, qwen2_vl

YES_NO = (("Yes",), ("No",))
MODELS = {"llava": llava, "qwen2_vl": qwen2_vl}
LOADED = {name: build() for name, build in MODELS.items()}
every_model = pytest.mark.parametrize("name", list(MODELS))


def judge(name: str, **options: Any) -> LocalJudge:
    return LocalJudge(*LOADED[name], **options)


def pictures(count: int, *, height: int = 40, width: int = 56) -> list[Image]:
    random = torch.Generator().manual_seed(0)
    return [Image(torch.rand(3, height, width, generator=random)) for _ in range(count)]


def questions() -> list[Question]:
    """Of several lengths, three of them about the same picture, one about two."""
    a, b, c = pictures(3)
    return [
        Question((a,), "red circle?"),
        Question((b,), "how well does the picture show a small red star on the left, from 1 to 5?"),
        Question((a,), "is it small?"),
        Question((a,), "is the picture red and blue and small, or is it neither?"),
        Question((b, c), "which shows a circle better?"),
    ]


@every_model
def test_an_answers_probability_is_that_of_the_full_softmax(name: str) -> None:
    model, processor = LOADED[name]
    ours = judge(name)
    found = ours.choices(questions(), YES_NO).log_prob
    assert len(found) > 1
    for question, row in zip(questions(), found, strict=True):
        inputs = processor(
            text=[ours.render(question)],
            images=[m.pixels for m in question.media if isinstance(m, Image)],
            do_rescale=False,
            return_tensors="pt",
        )
        with torch.no_grad():
            logits = model(**inputs).logits[0, -1]
        tokens = processor.tokenizer.convert_tokens_to_ids(["yes", "no"])
        assert_close(row, logits.log_softmax(-1)[tokens], atol=1e-5, rtol=1e-5)


@every_model
def test_neighbours_and_their_padding_change_nothing(name: str) -> None:
    together = judge(name, share=False).choices(questions(), YES_NO).log_prob
    alone = judge(name, share=False, batch_size=1).choices(questions(), YES_NO).log_prob
    assert_close(together, alone, atol=1e-5, rtol=1e-5)
    order = [3, 0, 4, 2, 1]
    turned = judge(name).choices([questions()[i] for i in order], YES_NO).log_prob
    assert_close(turned, together[order], atol=1e-5, rtol=1e-5)


@every_model
def test_what_is_written_does_not_depend_on_the_batch(name: str) -> None:
    together = judge(name).write(questions(), max_new_tokens=6)
    assert together == judge(name, batch_size=1).write(questions(), max_new_tokens=6)
    assert len({written.text for written in together}) > 1


@every_model
def test_a_shared_picture_is_read_once_and_the_numbers_stay(name: str) -> None:
    model, _ = LOADED[name]
    inner = model.model
    tower = inner.vision_tower if name == "llava" else inner.visual.blocks[0]
    (picture,) = pictures(1)
    asked = [
        Question((picture,), text) for text in ("red?", "is it a small circle on the left?", "blue star?")
    ]
    calls: list[int] = []
    handle = tower.register_forward_hook(lambda *_: calls.append(1))
    pixels: list[int] = []
    watch = model.register_forward_pre_hook(
        lambda _, __, kwargs: pixels.append(len(kwargs.get("pixel_values", ()))), with_kwargs=True
    )
    try:
        shared = judge(name).choices(asked, YES_NO).log_prob
        seen_once, calls[:] = (sum(pixels), len(calls)), []
        pixels.clear()
        each = judge(name, share=False).choices(asked, YES_NO).log_prob
    finally:
        handle.remove()
        watch.remove()
    assert_close(shared, each, atol=1e-5, rtol=1e-5)
    assert seen_once[1] == 1
    assert 3 * seen_once[0] == sum(pixels)


def test_a_tokenizer_that_joins_across_the_cut_is_noticed_and_nothing_is_shared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (picture,) = pictures(1)
    asked = [Question((picture,), text) for text in ("red?", "blue?")]
    expected = judge("llava", share=False).choices(asked, YES_NO).log_prob
    # One word further than it may be cut: "red" has lost its letter.
    whole = vlm_model.common_start
    monkeypatch.setattr(vlm_model, "common_start", lambda *a, **k: (whole(*a, **k) or 0) + 1)
    assert_close(judge("llava").choices(asked, YES_NO).log_prob, expected, atol=1e-5, rtol=1e-5)


@every_model
def test_the_gradient_is_that_of_the_log_probability(name: str) -> None:
    model, processor = MODELS[name]()
    ours = LocalJudge(model.double(), processor)
    pixels = pictures(1)[0].pixels.double().requires_grad_()
    value = ours.choices([Question((Image(pixels),), "red?")], YES_NO).log_prob[0, 0]
    (gradient,) = torch.autograd.grad(value, pixels)
    direction = torch.randn(pixels.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def at(step: float) -> torch.Tensor:
        moved = Image(pixels.detach() + step * direction)
        return ours.choices([Question((moved,), "red?")], YES_NO).log_prob[0, 0]

    numeric = (at(1e-3) - at(-1e-3)) / 2e-3
    # The log-softmax is taken in fp32, so the difference has about three digits.
    assert_close((gradient * direction).sum().float(), numeric.float(), rtol=2e-2, atol=1e-3)
    assert gradient.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_video_is_a_video_to_a_model_that_takes_one_and_pictures_to_others() -> None:
    frames = torch.rand(6, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    video = Question((Video(frames, 2.0),), "red?")
    as_pictures = Question(tuple(Image(frames[i]) for i in (1, 4)), "red?")
    for name in MODELS:
        ours = judge(name, frames=2)
        assert_close(ours.choices([video], YES_NO).log_prob, ours.choices([as_pictures], YES_NO).log_prob)
    whole = judge("qwen2_vl")
    assert "<|video_pad|>" in whole.render(video)
    assert whole.choices([video], YES_NO).log_prob.isfinite().all()
    back = Question((Video(frames.flip(0), 2.0),), "red?")
    found = whole.choices([video, back], YES_NO).log_prob
    assert not torch.allclose(found[0], found[1], atol=1e-3)


def test_sounds_are_heard_once_for_all_questions_and_at_the_models_rate() -> None:
    random = torch.Generator().manual_seed(0)
    long, short = (Audio(torch.rand(2, n, generator=random) - 0.5, 16_000) for n in (16_000, 8_000))
    asked = [
        Question((long,), "red?"),
        Question((short,), "is it small or not?"),
        Question((long,), "blue star?"),
    ]
    model, processor = qwen2_audio()
    passes: list[int] = []
    handle = model.model.audio_tower.register_forward_hook(lambda *_: passes.append(1))
    shared = LocalJudge(model, processor).choices(asked, YES_NO).log_prob
    assert len(passes) == 2
    handle.remove()
    alone = LocalJudge(model, processor, share=False, batch_size=1).choices(asked, YES_NO).log_prob
    assert_close(shared, alone, atol=1e-5, rtol=1e-5)
    mono = Question((long.mono().resampled(32_000),), "red?")
    found = LocalJudge(model, processor).choices([mono], YES_NO).log_prob[0]
    assert_close(found, shared[0], atol=0.1, rtol=0)
    assert not torch.allclose(shared[0], shared[2], atol=1e-3)


def test_a_model_without_ears_refuses_a_sound() -> None:
    with pytest.raises(ConfigError, match=r"processor \(LlavaProcessor\) takes no audio"):
        judge("llava").choices([Question((Audio(torch.zeros(1, 800), 8_000),), "loud?")], YES_NO)


def test_spellings_count_together_and_each_token_once() -> None:
    ours = judge("llava")
    assert ours.token_ids(("Yes", "yes", "YES"), exact=False) == ours.token_ids(("yes",), exact=True)
    both = ours.choices(questions(), (("yes", "no"),)).log_prob
    each = ours.choices(questions(), YES_NO).log_prob
    assert_close(both[:, 0], each.logsumexp(-1))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((("yes",), ("Yes",)), "two of them share a token"),
        ((("extremely poor",),), "no single token of this model"),
        ((("unheard",),), "no single token of this model"),
    ],
)
def test_answers_that_a_model_cannot_give_are_refused(words: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        judge("llava").choices(questions(), words)


def test_a_control_token_in_a_prompt_is_noticed() -> None:
    assert judge("llava").objection("a red star") == "ok"
    assert (
        judge("llava").objection("a <image> star")
        == "the prompt holds '<image>', a control token of the judge"
    )
    assert "<|vision_start|>" in judge("qwen2_vl").objection("<|vision_start|>")


def test_a_system_message_comes_first() -> None:
    ours = judge("llava", system="left is right")
    assert ours.render(questions()[0]).startswith("<|system|>left is right<|end|><|user|><image>red")


def test_a_processor_without_a_chat_template_is_refused() -> None:
    model, processor = llava()
    processor.chat_template = None
    with pytest.raises(ConfigError, match="no chat template"):
        LocalJudge(model, processor)


def test_no_questions_no_answers() -> None:
    assert judge("llava").choices([], YES_NO).log_prob.shape == (0, 2)
    assert judge("llava").write([], max_new_tokens=3) == []


def test_what_save_pretrained_wrote_answers_the_same(tmp_path: Path) -> None:
    model, processor = LOADED["llava"]
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    card = replace(find_card("shapes-truth"), name="small-judge", weights=str(tmp_path))
    assert_close(
        vlm_model.load_judge(card).choices(questions(), YES_NO).log_prob,
        judge("llava").choices(questions(), YES_NO).log_prob,
    )
    with pytest.raises(ConfigError, match=r"reward 'small-judge': transformers could not load .*config.json"):
        vlm_model.load_judge(replace(card, weights=str(tmp_path / "nothing")))
