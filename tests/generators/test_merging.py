"""Merging LoRAs: identities of the interpolation, exactness of the factors, and files that plain diffusers loads."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmalign.adapters.image import ImageAdapter
from mmalign.errors import ConfigError
from mmalign.generators import lora, merging
from mmalign.generators.lora_files import read_lora, write_lora
from tests.generators.small_pipelines import stable_diffusion_3

SIZE = {"height": 16, "width": 16}


def update(seed: int, *, rank: int = 2) -> dict[str, tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(seed)
    return {
        name: (torch.randn(rank, 5, generator=random), torch.randn(7, rank, generator=random))
        for name in ("a", "b")
    }


def change(update: merging.Update) -> dict[str, Tensor]:
    return {name: up @ down for name, (down, up) in update.items()}


def test_the_ends_of_an_interpolation_are_its_inputs() -> None:
    one, two = update(0), update(1)
    for share, wanted in ((0.0, one), (1.0, two)):
        merged = change(merging.slerp([one, two], share=share))
        for name, tensor in change(wanted).items():
            assert_close(merged[name], tensor, rtol=1e-4, atol=1e-5)


def test_a_merge_with_itself_changes_nothing() -> None:
    one = update(0)
    merged = change(merging.slerp([one, one, one]))
    for name, tensor in change(one).items():
        assert_close(merged[name], tensor, rtol=1e-4, atol=1e-5)


def test_the_middle_of_two_of_one_length_keeps_the_length() -> None:
    one, two = update(0), update(1)
    two = {
        name: (down, up * (one[name][1] @ one[name][0]).norm() / (up @ down).norm())
        for name, (down, up) in two.items()
    }
    merged, average = change(merging.slerp([one, two])), change(merging.linear([one, two], [0.5, 0.5]))
    for name, tensor in change(one).items():
        assert float(merged[name].norm()) == pytest.approx(float(tensor.norm()), rel=1e-4)
        assert float(average[name].norm()) < 0.95 * float(tensor.norm())  # what a plain average loses


def test_parallel_updates_are_averaged_plainly() -> None:
    assert merging.slerp_weights(torch.ones(3), 2 * torch.ones(3), 0.25) == (0.75, 0.25)
    assert merging.slerp_weights(torch.zeros(3), torch.ones(3), 0.25) == (0.75, 0.25)


def test_an_angle_of_sixty_degrees_by_hand() -> None:
    first, second = torch.tensor([1.0, 0.0]), torch.tensor([0.5, math.sqrt(0.75)])
    a, b = merging.slerp_weights(first, second, 0.5)  # sin 30 / sin 60
    assert a == pytest.approx(1 / math.sqrt(3), rel=1e-6)
    assert b == pytest.approx(1 / math.sqrt(3), rel=1e-6)


def test_three_count_alike_whatever_their_order() -> None:
    """For updates at right angles and of one length, no order is preferred."""
    eye = torch.eye(3)
    updates = [{"a": (eye[k : k + 1], eye[:, :1])} for k in range(3)]
    merged = change(merging.slerp(updates))["a"]
    assert_close(merged[0], torch.full((3,), float(merged[0, 0])), rtol=0.2, atol=0)


def test_a_linear_merge_is_the_weighted_sum_and_a_share_scales_it() -> None:
    one, two = update(0), update(1)
    merged = change(merging.towards_start(merging.linear([one, two], [2.0, -1.0]), share=0.5))
    for name in one:
        assert_close(merged[name], 0.5 * (2 * change(one)[name] - change(two)[name]), rtol=1e-4, atol=1e-5)


def test_a_merged_file_draws_in_plain_diffusers_what_its_weights_say(tmp_path: Path) -> None:
    """Two LoRAs with an alpha that is not their rank; share 0 and 1 of a merge are the two runs."""

    def pixels(folder: Path) -> Tensor:
        pipeline = stable_diffusion_3()
        pipeline.set_progress_bar_config(disable=True)
        pipeline.load_lora_weights(folder)
        drawn: Tensor = pipeline(
            "a star",
            num_inference_steps=2,
            guidance_scale=1.0,
            generator=torch.Generator().manual_seed(0),
            output_type="pt",
            **SIZE,
        ).images
        return drawn

    for seed in (0, 1):
        adapter = ImageAdapter(stable_diffusion_3(), **SIZE)
        adapter.generator.attach_lora(rank=2, alpha=6)
        for k, parameter in enumerate(lora.trainable(adapter.generator.policy)):
            random = torch.Generator().manual_seed(100 * seed + k)
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=random)
        adapter.save_lora(tmp_path / str(seed))
    (prefix, one), (_, two) = (read_lora(tmp_path / name) for name in "01")
    assert prefix == "transformer"
    assert float((pixels(tmp_path / "0") - pixels(tmp_path / "1")).abs().max()) > 2 / 255
    for share, run in ((0.0, "0"), (1.0, "1")):
        write_lora(tmp_path / "merged", prefix, merging.slerp([one, two], share=share))
        assert_close(pixels(tmp_path / "merged"), pixels(tmp_path / run), rtol=0, atol=1 / 255)
    write_lora(tmp_path / "start", prefix, merging.towards_start(one, share=0.0))
    plain = stable_diffusion_3()
    plain.set_progress_bar_config(disable=True)
    assert float((pixels(tmp_path / "start") - pixels(tmp_path / "0")).abs().max()) > 2 / 255


def test_what_cannot_be_merged_is_refused(tmp_path: Path) -> None:
    one, other = update(0), {"c": update(1)["a"]}
    with pytest.raises(ConfigError, match="change different layers"):
        merging.slerp([one, other])
    with pytest.raises(ConfigError, match="at least two"):
        merging.slerp([one])
    with pytest.raises(ConfigError, match="one weight for each"):
        merging.linear([one, one], [1.0])
    with pytest.raises(ConfigError, match=r"no pytorch_lora_weights\.safetensors here"):
        read_lora(tmp_path)
    (tmp_path / "pytorch_lora_weights.safetensors").write_bytes(b"not this")
    with pytest.raises(ConfigError, match="not a safetensors file"):
        read_lora(tmp_path)
    with pytest.raises(ConfigError, match="not a plain LoRA"):
        merging.read_update({"a.lora_A.weight": torch.ones(1, 1)}, 1.0)
