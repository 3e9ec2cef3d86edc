"""Scorers of transformers' CLIPs against ``CLIPModel`` and the authors' formulas written out."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torchvision import transforms
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from mmalign.errors import ConfigError
from mmalign.rewards.clip import ClipReward
from mmalign.rewards.clip_transformers import read_preprocessing
from mmalign.rewards.prompts import PromptEmbeddings
from tests.rewards import small_models
from tests.rewards.factories import FACTORIES, load_small
from tests.rewards.photographs import crops, samples

PROMPTS = ("a portrait of an officer", "a cat", "a portrait of an officer")
PICTURES = ((97, 61), (120, 200), (32, 32))
"""The last needs no resizing, so nothing but the arithmetic differs there."""


def embed(
    folder: Path, prompts: list[str], prepare: Any, *, processor: Path | None = None
) -> tuple[Any, ...]:
    """The model, and the unit vectors of the pictures and of the prompts, by transformers alone."""
    model = CLIPModel.from_pretrained(folder, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(processor or folder, local_files_only=True)
    pixels = torch.stack([prepare(picture) for picture in crops(*PICTURES)])
    tokens = tokenizer(prompts, padding=True, truncation=True, max_length=128, return_tensors="pt")
    with torch.no_grad():
        output = model(pixel_values=pixels, **tokens)
    return model, normalize(output.image_embeds, dim=-1), normalize(output.text_embeds, dim=-1)


def by_processor(folder: Path) -> Any:
    processor = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
    return lambda picture: torch.from_numpy(np.asarray(processor(picture)["pixel_values"][0]))


def by_torchvision(picture: Any) -> Tensor:
    """What OpenAI's own package does, which CLIPScore and the aesthetic predictor use."""
    steps = transforms.Compose(
        [
            transforms.Resize(32, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(32),
            transforms.ToTensor(),
            transforms.Normalize(small_models.CLIP_MEAN, small_models.CLIP_STD),
        ]
    )
    prepared: Tensor = steps(picture)
    return prepared


def agree(found: Tensor, expected: Tensor, *, drift: float) -> None:
    """Exactly on a picture of the model's size, within ``drift`` of the range where Pillow rounds to 8 bits."""
    torch.testing.assert_close(
        found[2], expected[2], atol=2e-5 * max(1.0, float(expected.abs().max())), rtol=0
    )
    torch.testing.assert_close(found, expected, atol=drift, rtol=0)


def test_pickscore_is_the_models_logit_of_each_pair(tmp_path: Path) -> None:
    reward = FACTORIES["pickscore-v1"](tmp_path)
    processor = tmp_path / "processor"
    model, image, text = embed(tmp_path, list(PROMPTS), by_processor(processor), processor=processor)
    expected = (model.logit_scale.exp().detach() * text @ image.T).diagonal()
    agree(reward.score(samples(PROMPTS, crops(*PICTURES))).value, expected, drift=0.02 * 14)


def test_clipscore_is_its_authors(tmp_path: Path) -> None:
    reward = FACTORIES["clipscore-vit-b-32"](tmp_path)
    _, image, text = embed(tmp_path, [f"A photo depicts {prompt}" for prompt in PROMPTS], by_torchvision)
    expected = 2.5 * (image * text).sum(1).clamp(min=0)
    agree(reward.score(samples(PROMPTS, crops(*PICTURES))).value, expected, drift=0.02 * 2.5)


def test_clipscore_of_the_large_model_is_torchmetrics(tmp_path: Path) -> None:
    reward = FACTORIES["clipscore-vit-l-14"](tmp_path)
    _, image, text = embed(tmp_path, list(PROMPTS), by_processor(tmp_path))
    expected = (100 * (image * text).sum(1)).clamp(min=0)
    agree(reward.score(samples(PROMPTS, crops(*PICTURES))).value, expected, drift=0.02 * 100)


def test_padding_does_not_count(tmp_path: Path) -> None:
    """A prompt has the same vector beside a longer one, which pads it."""
    reward = FACTORIES["pickscore-v1"](tmp_path)
    assert isinstance(reward, ClipReward)
    text = reward.encoder.text
    beside = text(["a cat", "a cat on a mat in front of a house"])[0]
    text.kept.clear()
    torch.testing.assert_close(text(["a cat"])[0], beside, atol=1e-6, rtol=0)


def test_a_long_prompt_scores_as_its_beginning_and_is_reported_once(tmp_path: Path) -> None:
    reward = FACTORIES["clipscore-vit-l-14"](tmp_path)
    fits = "a" * (small_models.CLIP_CONTEXT - 2)  # one token a letter
    (picture,) = crops((32, 32))
    with pytest.warns(UserWarning, match="clipscore-vit-l-14 reads 128 tokens .* first of 1 here: 'aaa"):
        cut = reward.score(samples([fits[:-1] + "bbbb"], [picture])).value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = reward.score(samples([fits[:-1] + "b", fits + "cc"], [picture] * 2)).value
    # The end of a word is another token than its middle, so only the vectors' nearness is left to compare.
    assert (cut - whole[:1]).abs() < 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do_resize": False}, "does not prepare pictures as CLIP does"),
        ({"size": {"shortest_edge": 40}}, "does not prepare pictures as CLIP does"),
        ({"resample": 0}, r"resample = 0, expected 2 \(bilinear\) or 3 \(bicubic\)"),
    ],
)
def test_a_processor_that_does_something_else_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    small_models.save_clip_processor(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ConfigError, match=message):
        read_preprocessing(tmp_path)


def test_a_checkpoint_that_lacks_a_tensor_is_refused_and_not_filled_with_noise(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    card = FACTORIES["clipscore-vit-b-32"](tmp_path).card
    state = load_file(tmp_path / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"another model: 1 tensors differ, first: .*visual_projection"):
        load_small(card)


def encoder(folder: Path) -> PromptEmbeddings:
    """The prompts' side of a small CLIP whose tokenizer spells."""
    reward = FACTORIES["clipscore-vit-l-14"](folder)
    assert isinstance(reward, ClipReward)
    return reward.encoder.text


def test_a_prompt_has_the_same_bits_whichever_lengths_are_beside_it(tmp_path: Path) -> None:
    text = encoder(tmp_path)
    captions = ["a" * length for length in (1, 40, 7, 6, 23, 41, 2, 100, 5)]
    together = text(captions)
    for some in ([0], [2, 1], [7, 8, 3], [5, 4, 6, 0]):
        text.kept.clear()
        assert torch.equal(text([captions[i] for i in some]), together[some])


def test_a_forward_pass_computes_little_padding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, passes = encoder(tmp_path), list[tuple[int, ...]]()
    encode = text.encode

    def noting(ids: Tensor, mask: Tensor) -> Tensor:
        passes.append(tuple(ids.shape))
        return encode(ids, mask)

    monkeypatch.setattr(text, "encode", noting)
    text(["a" * length for length in (100, 3, 2, 60, 61, 62, 5, 4, 6)])  # and a token at either end
    assert passes == [(4, 8), (4, 8), (4, 64), (4, 104)]
