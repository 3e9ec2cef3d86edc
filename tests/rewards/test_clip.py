"""The open_clip scorer against open_clip itself: the same pictures, texts and numbers."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import open_clip
import PIL.Image
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors.torch import save_file
from torchvision.transforms.functional import normalize

from mmalign.errors import ConfigError, ShapeError
from mmalign.media import Image, Sample
from mmalign.rewards import clip
from mmalign.rewards.cards import RewardCard, find_card, load_reward
from mmalign.rewards.clip import ClipReward, resize_and_crop
from mmalign.worlds import shapes

PHOTO = PIL.Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg").convert("RGB")
MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
PROMPTS = ("a portrait of an officer", "a cat", "a portrait of an officer")


def crops(*sizes: tuple[int, int]) -> list[PIL.Image.Image]:
    """Parts of a real photograph, (width, height)."""
    return [PHOTO.crop((60, 20, 60 + width, 20 + height)) for width, height in sizes]


def random_checkpoint(folder: Path, *, image_size: int | tuple[int, int] = 32, **preprocess: Any) -> Path:
    """A tiny CLIP of random weights as open_clip publishes its checkpoints, with open_clip's own tokenizer."""
    model_cfg = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": image_size, "patch_size": 8, "width": 24, "layers": 2, "head_width": 12},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 2},
    }
    torch.manual_seed(0)
    model = open_clip.CLIP(**model_cfg)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": model_cfg, "preprocess_cfg": {"mean": MEAN, "std": STD, **preprocess}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(tmp_path_factory.mktemp("clip"))


def card_of(folder: Path | str) -> RewardCard:
    return replace(find_card("embedded/shapes-clip"), name="random-clip", weights=str(folder))


@pytest.mark.parametrize("size", [32, (32, 48), (40, 24)])
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_preprocessing_is_open_clips_own(
    size: int | tuple[int, int], resize_mode: str, interpolation: str
) -> None:
    own = image_transform_v2(
        PreprocessCfg(
            size=size, resize_mode=resize_mode, interpolation=interpolation, mean=MEAN, std=STD, fill_color=90
        ),
        is_train=False,
    )
    for picture in crops((97, 61), (61, 97), (255, 131), (64, 64), (23, 17), (33, 200)):
        ours = resize_and_crop(
            Image.from_pil(picture).pixels[None],
            size=size,
            resize_mode=resize_mode,
            interpolation=interpolation,
            fill_color=90,
        )[0]
        unit = 255 * torch.tensor(STD)[:, None, None]  # back from normalised numbers to 8 bits
        difference = (normalize(ours, MEAN, STD) - own(picture)).abs() * unit
        assert difference.max() <= 1.5, picture.size
        assert difference.mean() <= 0.4, picture.size


def test_a_picture_of_the_models_size_is_left_alone() -> None:
    pixels = Image.from_pil(crops((32, 32))[0]).pixels[None]
    assert resize_and_crop(pixels, size=32, resize_mode="shortest", interpolation="bicubic") is pixels


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
def test_scores_are_open_clips_own(tmp_path: Path, resize_mode: str) -> None:
    folder = random_checkpoint(tmp_path, resize_mode=resize_mode, interpolation="bicubic")
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    pictures = crops((97, 61), (120, 200), (32, 32))
    with torch.no_grad():
        image = model.eval().encode_image(torch.stack([preprocess(picture) for picture in pictures]))
        text = model.encode_text(tokenize(list(PROMPTS)))
    expected = 100 * torch.cosine_similarity(image, text)
    samples = [Sample(p, Image.from_pil(picture)) for p, picture in zip(PROMPTS, pictures, strict=True)]
    score = ClipReward(card_of(folder), batch_size=2).score(samples)
    # The third picture needs no resizing, so nothing but the arithmetic differs.
    torch.testing.assert_close(score.value[2], expected[2], atol=1e-4, rtol=0)
    torch.testing.assert_close(score.value, expected, atol=0.1, rtol=0)


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
    samples = [Sample(caption, picture) for caption, picture in zip(captions, pictures, strict=True)]
    torch.testing.assert_close(load_reward(card.name).score(samples).value, expected, atol=0.1, rtol=0)


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
    reward.model.double()
    random = torch.Generator().manual_seed(0)
    media = torch.rand(2, 3, 48, 40, dtype=torch.float64, generator=random).requires_grad_()
    samples = [Sample(prompt) for prompt in PROMPTS[:2]]
    value = reward.score_with_grad(media, samples)
    (gradient,) = torch.autograd.grad(value.sum(), media)
    direction = torch.randn(media.shape, dtype=torch.float64, generator=random)
    step = 1e-5 * direction
    numeric = (
        reward.score_with_grad(media + step, samples) - reward.score_with_grad(media - step, samples)
    ).sum() / 2e-5
    torch.testing.assert_close((gradient * direction).sum(), numeric, rtol=1e-3, atol=0)
    assert all(parameter.grad is None for parameter in reward.model.parameters())


@pytest.mark.parametrize("shape", [(3, 3, 32, 32), (2, 1, 32, 32), (2, 32, 32)])
def test_a_batch_of_another_shape_is_refused(folder: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"expected \[B, 3, H, W\] with B = 2"):
        ClipReward(card_of(folder)).score_with_grad(torch.zeros(shape), [Sample("a"), Sample("b")])


class Counting:
    """A tokenizer that counts the texts it is given at the model's own length."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.texts = tokenizer, 0

    def __call__(self, texts: list[str], **options: Any) -> Any:
        self.texts += 0 if options else len(texts)
        return self.tokenizer(texts, **options)


def test_a_prompt_is_embedded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = clip.load_open_clip(card_of(folder))
    counting = Counting(tokenizer)
    reward = ClipReward(card_of(folder), model=model, tokenizer=counting)
    counting.texts = 0
    samples = [Sample(prompt, Image.from_pil(crops((32, 32))[0])) for prompt in PROMPTS]
    first = reward.score(samples).value
    assert counting.texts == 2
    torch.testing.assert_close(reward.score(samples).value, first)
    assert counting.texts == 2
    monkeypatch.setattr(clip, "PROMPTS_KEPT", 2)
    torch.testing.assert_close(reward.score([*samples, replace(samples[0], prompt="new")]).value[:3], first)
    assert counting.texts == 5
    assert len(reward._prompts) == 3


@pytest.mark.parametrize("which", ["open_clip's tokenizer", "a transformers tokenizer"])
def test_a_long_prompt_keeps_its_beginning_and_its_end_token_and_is_reported(
    folder: Path, which: str
) -> None:
    card = card_of(folder) if which == "open_clip's tokenizer" else find_card("embedded/shapes-clip")
    reward = ClipReward(card)
    words = "red circle on the left"
    context = reward.tokenize([words]).shape[1]
    fits = " ".join(["red"] * (context - 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = reward.tokenize([words, fits, ""])
    end = whole[1, -1]
    with pytest.warns(UserWarning, match=f"reads {context} tokens and cut 2 longer prompts, first: 'red red"):
        cut = reward.tokenize([words, fits + " red", fits + " blue" * 50])
    assert torch.equal(cut[0], whole[0])
    assert torch.equal(cut[1], whole[1])
    assert torch.equal(cut[2], whole[1])
    assert (whole == end).any(1).all()


def test_weights_that_are_not_there_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"reward 'random-clip': open_clip could not load .*open_clip_config.json"
    ):
        ClipReward(card_of(tmp_path))


def test_a_folder_without_weights_is_refused_and_not_filled_with_noise(tmp_path: Path) -> None:
    folder = random_checkpoint(tmp_path)
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(ConfigError, match="could not load"):
        ClipReward(card_of(folder))
