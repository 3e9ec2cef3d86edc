"""Heads on patches and words, the CLIP features below them, and what is trained of a CLIP."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError, UnknownNameError
from mmalign.rewards.clip_dense import DenseClip, pieces
from mmalign.rewards.clip_tuning import make_trainable, take_tuned, update_targets
from mmalign.rewards.dense import load_dense_backbone, whole_map, word_rewards
from mmalign.rewards.dense_head import DenseHead, DenseHeadOptions
from mmalign.rewards.preprocessing import Preprocessing
from mmalign.rewards.weights import fill

B, P, W, DP, DW = 2, 5, 4, 6, 3
TEXTS = ["a small red circle on the left", "one blue star, large, at the top"]


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def small_head(**options: Any) -> DenseHead:
    head = DenseHead(DP, DW, (1, P), DenseHeadOptions(width=8, attention_heads=2, **options))
    return head.eval()


@pytest.fixture(scope="module")
def dense() -> DenseClip:
    return load_dense_backbone("embedded/shapes-clip", patch_layer=-1, device="cpu")[1]


# the head


def test_padding_and_neighbours_change_nothing() -> None:
    head = small_head(regions=True)
    patches, words = gaussian(B, P, DP), gaussian(B, W, DW, seed=1)
    mask = torch.tensor([[True, True, False, False], [True] * 4])
    right, wrong = head(patches, words, mask)
    words[0, 2:] = 100.0
    alone, region = head(patches[:1], words[:1, :2], mask[:1, :2])
    assert wrong is not None
    assert region is not None
    assert (wrong.shape, right.shape) == ((B, P), (B, W))
    assert_close(right[:1, :2], alone)
    assert_close(wrong[:1], region)
    assert_close(head(patches, words, mask)[0][mask], right[mask])


def test_words_see_each_other_and_patches_see_words() -> None:
    head = small_head(regions=True, layers=1)
    patches, words = gaussian(1, P, DP).requires_grad_(), gaussian(1, W, DW, seed=1).requires_grad_()
    mask = torch.ones(1, W, dtype=torch.bool)
    right, wrong = head(patches, words, mask)
    assert wrong is not None
    for output in (right[0, 0], wrong[0, 0]):
        to_patches, to_words = torch.autograd.grad(output, [patches, words], retain_graph=True)
        assert (to_patches.norm(dim=-1) > 0).all()
        assert (to_words.norm(dim=-1) > 0).all()


def test_places_count_and_not_the_order_of_the_rest() -> None:
    head = small_head(regions=True)
    patches, words = gaussian(1, P, DP), gaussian(1, W, DW, seed=1)
    mask = torch.ones(1, W, dtype=torch.bool)
    right, wrong = head(patches, words, mask)
    for turned in (head(patches.flip(1), words, mask), head(patches, words.flip(1), mask)):
        assert not torch.allclose(turned[0].sort().values, right.sort().values, atol=1e-4)
        assert turned[1] is not None
        assert wrong is not None
        assert not torch.allclose(turned[1].sort().values, wrong.sort().values, atol=1e-4)
    with pytest.raises(ShapeError, match=rf"\[B, {P}, D\]"):
        head(patches[:, 1:], words, mask)


def test_a_head_from_before_it_had_places_is_refused() -> None:
    state = small_head(regions=True).state_dict()
    del state["patch_places"]
    with pytest.raises(ConfigError, match="patch_places"):
        fill(small_head(regions=True), state, origin=Path("head.safetensors"))


def test_a_prompt_without_words_is_finite_and_a_token_head_has_no_map() -> None:
    nothing = torch.zeros(1, 1, dtype=torch.bool)
    right, wrong = small_head(regions=True)(gaussian(1, P, DP), torch.zeros(1, 1, DW), nothing)
    assert wrong is not None
    assert wrong.isfinite().all()
    assert right.isfinite().all()
    assert small_head()(gaussian(1, P, DP), gaussian(1, W, DW), nothing.expand(1, W))[1] is None
    with pytest.raises(ShapeError, match="mask"):
        small_head()(gaussian(B, P, DP), gaussian(B, W, DW), nothing)


def test_options_come_back_from_a_card_and_unknown_ones_are_refused() -> None:
    options = DenseHeadOptions(regions=True, patch_layer=1, tune="lora", lora_rank=3)
    assert DenseHeadOptions.read(options.plain()) == options
    with pytest.raises(UnknownNameError, match="width"):
        DenseHeadOptions.read({"widht": 3})
    with pytest.raises(ConfigError, match="divide"):
        DenseHeadOptions(width=10, attention_heads=4)
    with pytest.raises(UnknownNameError, match="frozen"):
        DenseHeadOptions.read({"tune": "frosen"})


# what words are worth


def test_rewards_of_words_are_the_log_of_their_probability_over_chance() -> None:
    logits = torch.tensor([[0.0, 2.0, -3.0, 7.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True, False]])
    expected = (2 * logits.sigmoid()).log() / 3
    found = word_rewards(logits, mask)
    assert_close(found[mask], expected[mask])
    assert found[0, 3] == 0
    assert (word_rewards(torch.full((1, 3), 40.0), mask[:, :3]).sum() - torch.tensor(2.0).log()).abs() < 1e-6
    assert (word_rewards(logits, torch.zeros_like(mask)) == 0).all()


# where a map lies


@pytest.mark.parametrize("size", [(64, 64), (64, 128), (90, 40), (32, 50)])
@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_a_map_of_what_the_model_saw_finds_the_place_in_the_whole_picture(mode: Any, size: Any) -> None:
    step = Preprocessing(size=(64, 64), resize_mode=mode, mean=(0.0,) * 3, std=(1.0,) * 3)
    H, W = size
    picture = torch.zeros(1, 3, H, W)
    top, left = int(0.55 * H), int(0.45 * W)  # near the middle, where every crop has it
    picture[..., top : top + H // 5, left : left + W // 5] = 1.0
    found = whole_map(step.resize(picture)[0, 0], step.shown((H, W)))
    wanted = torch.nn.functional.interpolate(picture[:, :1], (64, 64), mode="area")[0, 0]
    assert torch.nn.functional.cosine_similarity(found.flatten(), wanted.flatten(), dim=0) > 0.9


# CLIP's patches and words


def test_words_of_clip_are_its_own_tokens(dense: DenseClip) -> None:
    features, mask = dense.words([*TEXTS, " ".join(["red"] * 50)])
    assert mask.sum(1).tolist() == [len(pieces(TEXTS[0])), len(pieces(TEXTS[1])), dense.context - 2]
    assert (features[~mask] == 0).all()
    # The tokens are those of the library's own tokenizer, so the last layer is that of the whole prompt.
    for text in TEXTS:
        assert dense._tokens(text)[0] == dense._tokenizer([text])[0].tolist()
    again, _ = dense.words(TEXTS[:1])
    assert_close(features[:1, : again.shape[1]], again, rtol=0, atol=1e-5)


def test_patches_lead_to_the_pictures_vector(dense: DenseClip) -> None:
    pixels = gaussian(2, 3, 64, 64)
    patches = dense.patches(pixels)
    assert patches.shape == (2, 64, dense.patch_width)
    # The first block's patches are what the second block turns into the picture's vector.
    early = DenseClip(dense.encoder, name="x", layer=0).patches(pixels)
    assert early.shape == patches.shape
    assert not torch.allclose(early, patches)
    # Row by row: a change in the upper left corner is seen most by the first patch of the first layer.
    other = pixels.clone()
    other[..., :8, :8] += 3.0
    moved = (DenseClip(dense.encoder, name="x", layer=0).patches(other) - early).norm(dim=-1)
    assert moved.argmax(1).tolist() == [0, 0]
    other = pixels.clone()
    other[..., :8, -8:] += 3.0
    moved = (DenseClip(dense.encoder, name="x", layer=0).patches(other) - early).norm(dim=-1)
    assert moved.argmax(1).tolist() == [7, 7]
    with pytest.raises(ConfigError, match="layer = 4"):
        DenseClip(dense.encoder, name="x", layer=4)


def test_a_backbone_that_shows_no_patches_is_refused() -> None:
    with pytest.raises(ConfigError, match="no CLIP of pictures"):
        load_dense_backbone("embedded/tones-clap", patch_layer=-1, device="cpu")


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_a_tuned_backbone_comes_back(tune: Any) -> None:
    first, again = (
        load_dense_backbone("embedded/shapes-clip", patch_layer=-1, device="cpu")[1] for _ in "ab"
    )
    pixels = gaussian(1, 3, 64, 64)
    before = first.patches(pixels)
    trained = make_trainable(first.model, tune, rank=2)
    assert_close(first.patches(pixels), before, rtol=0, atol=1e-5)  # at first nothing changes
    assert all(name.endswith("default.weight") for name in trained) == (tune == "lora")
    for seed, parameter in enumerate(trained.values()):
        parameter.data.add_(0.02 * gaussian(*parameter.shape, seed=seed))
    after = first.patches(pixels)
    (gradient,) = torch.autograd.grad(after.sum(), [next(iter(trained.values()))], allow_unused=True)
    assert gradient is not None or tune == "full"
    assert not torch.allclose(after, before)
    state = {name: parameter.detach().clone() for name, parameter in trained.items()}
    take_tuned(again.model, tune, state, rank=2)
    assert_close(again.patches(pixels), after, rtol=0, atol=1e-5)
    assert not any(p.requires_grad for p in again.model.parameters())
    other = load_dense_backbone("embedded/shapes-clip", patch_layer=-1, device="cpu")[1]
    with pytest.raises(ConfigError, match="another backbone"):
        take_tuned(other.model, tune, dict(list(state.items())[1:]), rank=2)


def test_no_update_is_put_where_it_would_do_nothing(dense: DenseClip) -> None:
    found = update_targets(dense.model)
    assert found
    assert not any("out_proj" in name for name in found)
    with pytest.raises(ConfigError, match="--tune full"):
        update_targets(torch.nn.Sequential(torch.nn.ReLU()))
