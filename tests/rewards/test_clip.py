"""Scorers of open_clip's checkpoints against open_clip itself: the same pictures, texts and numbers."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch.nn.functional import normalize
from torchvision.transforms import functional as transforms

from mmalign.errors import ConfigError, ShapeError, UnknownNameError
from mmalign.media import Image, Sample
from mmalign.rewards import prompts
from mmalign.rewards.cards import RewardCard, find_card, load_reward
from mmalign.rewards.clip import ClipReward, clip_cosine, clipscore_original
from mmalign.rewards.clip_open_clip import OpenClipTokenizer
from mmalign.worlds import shapes
from tests.rewards import small_models
from tests.rewards.factories import FACTORIES
from tests.rewards.photographs import crops, samples

PROMPTS = ("a portrait of an officer", "a cat", "a portrait of an officer")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.save_open_clip(tmp_path_factory.mktemp("clip"))


def card_of(folder: Path | str) -> RewardCard:
    return replace(find_card("embedded/shapes-clip"), name="random-clip", weights=str(folder))


def test_the_length_of_vectors_does_not_count() -> None:
    random = torch.Generator().manual_seed(0)
    image, text = torch.randn(2, 5, 7, dtype=torch.float64, generator=random)
    expected = torch.cosine_similarity(image, text)
    torch.testing.assert_close(clip_cosine(image, text), expected)
    torch.testing.assert_close(clip_cosine(7 * image, text / 3), expected)
    torch.testing.assert_close(clip_cosine(image, image), torch.ones(5, dtype=torch.float64))
    assert clip_cosine(torch.zeros(1, 7), torch.ones(1, 7)).tolist() == [0.0]


def test_clipscore_has_no_gradient_where_it_is_clipped() -> None:
    cosine = torch.tensor([0.3, -0.3], requires_grad=True)
    clipscore_original(cosine).sum().backward()
    assert cosine.grad is not None
    assert cosine.grad.tolist() == [2.5, 0.0]


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
def test_scores_are_open_clips_own(tmp_path: Path, resize_mode: str) -> None:
    folder = small_models.save_open_clip(
        tmp_path, preprocess={"resize_mode": resize_mode, "interpolation": "bicubic"}
    )
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    pictures = crops((97, 61), (120, 200), (32, 32))
    with torch.no_grad():
        image = model.eval().encode_image(torch.stack([preprocess(picture) for picture in pictures]))
        text = model.encode_text(tokenize(list(PROMPTS)))
    expected = 100 * torch.cosine_similarity(image, text)
    score = ClipReward(card_of(folder), batch_size=2).score(samples(PROMPTS, pictures))
    # The third picture needs no resizing, so nothing but the arithmetic differs.
    torch.testing.assert_close(score.value[2], expected[2], atol=1e-4, rtol=0)
    torch.testing.assert_close(score.value, expected, atol=0.2, rtol=0)


@pytest.mark.parametrize("name", ["hps-v2.0", "hps-v2.1"])
def test_hps_is_the_cosine_of_its_file_on_resized_tensors(tmp_path: Path, name: str) -> None:
    """The authors' steps: to a tensor, longest side to the model's, black border, normalise, one cosine."""
    reward = FACTORIES[name](tmp_path)
    model = open_clip.CLIP(**small_models.open_clip_config()).eval()
    file = find_card(name).options["encoder"]["file"]
    model.load_state_dict(torch.load(tmp_path / file, weights_only=True)["state_dict"])
    pictures = crops((96, 64), (40, 80), (32, 32))
    mean, std = list(small_models.CLIP_MEAN), list(small_models.CLIP_STD)
    tensors = []
    for picture in pictures:
        pixels = transforms.to_tensor(picture)
        height, width = pixels.shape[1:]
        small = [round(32 * height / max(height, width)), round(32 * width / max(height, width))]
        pixels = transforms.resize(pixels, small, transforms.InterpolationMode.BICUBIC, antialias=True)
        left, top = (32 - small[1]) // 2, (32 - small[0]) // 2
        sides = [left, top, 32 - small[1] - left, 32 - small[0] - top]
        tensors.append(transforms.normalize(transforms.pad(pixels, sides), mean, std))
    with torch.no_grad():
        image = normalize(model.encode_image(torch.stack(tensors)), dim=-1)
        text = normalize(model.encode_text(open_clip.tokenize(list(PROMPTS), context_length=24)), dim=-1)
    expected = (image @ text.T).diagonal()
    torch.testing.assert_close(reward.score(samples(PROMPTS, pictures)).value, expected, atol=1e-5, rtol=0)


def test_grey_and_transparent_pictures_score_as_their_colours(tmp_path: Path) -> None:
    reward = FACTORIES["hps-v2.1"](tmp_path)
    (picture,) = crops((50, 40))
    grey, clear = picture.convert("L"), picture.convert("RGBA")
    scores = reward.score(samples(["a cat"] * 4, [picture, clear, grey, grey.convert("RGB")])).value
    torch.testing.assert_close(scores[0], scores[1])
    torch.testing.assert_close(scores[2], scores[3])


def test_the_embedded_model_is_loaded_and_scored_as_any_checkpoint() -> None:
    card = find_card("embedded/shapes-clip")
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{card.weights_folder()}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{card.weights_folder()}")
    scenes = [(shape,) for shape in shapes.all_shapes("heldout")[:5]]
    captions = [shapes.caption(scene) for scene in scenes]
    pictures = [Image(p) for p in shapes.render(scenes, torch.Generator().manual_seed(0))]
    with torch.no_grad():
        image = model.eval().encode_image(torch.stack([preprocess(picture.to_pil()) for picture in pictures]))
        expected = 100 * torch.cosine_similarity(image, model.encode_text(tokenize(captions)))
    scored = [Sample(caption, picture) for caption, picture in zip(captions, pictures, strict=True)]
    torch.testing.assert_close(load_reward(card.name).score(scored).value, expected, atol=0.1, rtol=0)


def test_the_embedded_model_tells_the_right_caption_on_unseen_combinations() -> None:
    random = torch.Generator().manual_seed(0)
    scenes = [(shape,) for shape in shapes.all_shapes("heldout")]
    pictures = [Image(picture) for picture in shapes.render(scenes, random)]
    right = [
        Sample(shapes.caption(s, i % 5), p) for i, (s, p) in enumerate(zip(scenes, pictures, strict=True))
    ]
    wrong = []
    for i, ((shape,), picture) in enumerate(zip(scenes, pictures, strict=True)):
        name = shapes.ATTRIBUTES[i % 4]
        values = list(dict.fromkeys(getattr(other, name) for other in shapes.all_shapes()))
        value = values[(values.index(getattr(shape, name)) + 1 + i % (len(values) - 1)) % len(values)]
        wrong.append(Sample(shapes.caption((replace(shape, **{name: value}),), i % 5), picture))
    reward = load_reward("embedded/shapes-clip")
    assert (reward.score(right).value > reward.score(wrong).value).float().mean() >= 0.97


def test_the_gradient_is_that_of_the_score(folder: Path) -> None:
    reward = ClipReward(card_of(folder))
    reward.encoder.model.double()
    random = torch.Generator().manual_seed(0)
    media = torch.rand(2, 3, 48, 40, dtype=torch.float64, generator=random).requires_grad_()
    prompted = [Sample(prompt) for prompt in PROMPTS[:2]]
    value = reward.score_with_grad(media, prompted)
    (gradient,) = torch.autograd.grad(value.sum(), media)
    direction = torch.randn(media.shape, dtype=torch.float64, generator=random)
    step = 1e-5 * direction
    numeric = (
        reward.score_with_grad(media + step, prompted) - reward.score_with_grad(media - step, prompted)
    ).sum() / 2e-5
    torch.testing.assert_close((gradient * direction).sum(), numeric, rtol=1e-3, atol=0)
    assert all(parameter.grad is None for parameter in reward.encoder.model.parameters())


@pytest.mark.parametrize("shape", [(3, 3, 32, 32), (2, 1, 32, 32), (2, 32, 32)])
def test_a_batch_of_another_shape_is_refused(folder: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"expected \[B, 3, H, W\] with B = 2"):
        ClipReward(card_of(folder)).score_with_grad(torch.zeros(shape), [Sample("a"), Sample("b")])


def test_a_prompt_is_embedded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = ClipReward(card_of(folder))
    counted: list[int] = []
    encode = reward.encoder.text.encode

    def counting(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        counted.append(len(set(map(tuple, ids.tolist()))))  # rows that fill a forward are a prompt again
        return encode(ids, mask)

    monkeypatch.setattr(reward.encoder.text, "encode", counting)
    scored = samples(PROMPTS, crops((32, 32)) * 3)
    first = reward.score(scored).value
    assert counted == [2]
    torch.testing.assert_close(reward.score(scored).value, first)
    assert counted == [2]
    monkeypatch.setattr(prompts, "PROMPTS_KEPT", 2)
    torch.testing.assert_close(reward.score([*scored, replace(scored[0], prompt="new")]).value[:3], first)
    assert counted == [2, 3]
    assert len(reward.encoder.text.kept) == 3


def test_a_prompt_has_the_same_bits_whichever_others_are_new() -> None:
    captions = shapes.captions("heldout")[:37]
    together = ClipReward(find_card("embedded/shapes-clip")).encoder.text(captions)
    for some in ([0], [5, 9], list(range(7)), list(range(20, 37))):
        alone = ClipReward(find_card("embedded/shapes-clip")).encoder.text([captions[i] for i in some])
        assert torch.equal(alone, together[some])


@pytest.mark.parametrize("which", ["open_clip's tokenizer", "a transformers tokenizer"])
def test_a_long_prompt_keeps_its_beginning_and_its_end_token_and_is_reported(
    folder: Path, which: str
) -> None:
    card = card_of(folder) if which == "open_clip's tokenizer" else find_card("embedded/shapes-clip")
    tokenize = ClipReward(card).encoder.text.tokenize
    assert isinstance(tokenize, OpenClipTokenizer)
    words = "red circle on the left"
    context = tokenize([words]).ids.shape[1]
    fits = " ".join(["red"] * (context - 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = tokenize([words, fits, ""])
    assert whole.cut == [False, False, False]
    with pytest.warns(UserWarning, match=rf"reads {context} tokens .* first of 2 here: 'red red"):
        cut = tokenize([words, fits + " red", fits + " blue" * 50])
    assert cut.cut == [False, True, True]
    torch.testing.assert_close(cut.ids, whole.ids[[0, 1, 1]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenize([fits + " red"])  # said once


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"scale": "chekpoint"}, ConfigError, "scale = 'chekpoint', expected a number or 'checkpoint'"),
        ({"encoder": {"library": "openclip"}}, UnknownNameError, "Did you mean 'open_clip'"),
        ({"encoder": {"architecture": "ViT-H-14"}}, ConfigError, "architecture and file .* go together"),
        ({"encoder": {"architecture": "ViT-X", "file": "a"}}, ConfigError, "no architecture 'ViT-X'"),
    ],
)
def test_an_option_that_cannot_work_is_refused(
    folder: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ClipReward(card_of(folder), **options)


def test_weights_that_are_not_there_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"reward 'random-clip': open_clip could not load .*open_clip_config.json"
    ):
        ClipReward(card_of(tmp_path))


def test_a_folder_without_weights_is_refused_and_not_filled_with_noise(tmp_path: Path) -> None:
    folder = small_models.save_open_clip(tmp_path)
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(ConfigError, match="could not load"):
        ClipReward(card_of(folder))


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    reward = FACTORIES["hps-v2.0"](tmp_path)
    file = tmp_path / find_card("hps-v2.0").options["encoder"]["file"]
    state = torch.load(file, weights_only=True)["state_dict"]
    del state["visual.proj"]
    torch.save({"state_dict": state}, file)
    with pytest.raises(ConfigError, match=r"another model: 1 tensors differ, first: no visual\.proj"):
        ClipReward(reward.card, **reward.card.options)
