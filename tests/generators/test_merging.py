"""Merging LoRAs: identities of the interpolation, exactness of the factors, and files that plain diffusers loads."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor
from torch.testing import assert_close

from mmalign.adapters.image import ImageAdapter
from mmalign.cli import merge as merge_command
from mmalign.errors import ConfigError
from mmalign.generators import lora, merging
from mmalign.generators.lora_files import read_lora, write_lora
from tests.generators.small_pipelines import stable_diffusion_3
from tests.generators.small_token_models import llama

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
    assert merged.keys() == one.keys()
    assert merged
    for name, tensor in change(one).items():
        assert_close(merged[name], tensor, rtol=1e-4, atol=1e-5)


def test_the_middle_of_two_of_one_length_keeps_the_length() -> None:
    one, two = update(0), update(1)
    two = {
        name: (down, up * (one[name][1] @ one[name][0]).norm() / (up @ down).norm())
        for name, (down, up) in two.items()
    }
    merged, average = change(merging.slerp([one, two])), change(merging.linear([one, two], [0.5, 0.5]))
    assert len(merged) == len(one) > 0
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
    assert len(merged) == len(one) > 0
    for name in one:
        assert_close(merged[name], 0.5 * (2 * change(one)[name] - change(two)[name]), rtol=1e-4, atol=1e-5)


def pixels(folder: Path | None) -> Tensor:
    """Of plain diffusers, with a LoRA or without."""
    pipeline = stable_diffusion_3()
    pipeline.set_progress_bar_config(disable=True)
    if folder is not None:
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


def test_a_merged_file_draws_in_plain_diffusers_what_its_weights_say(tmp_path: Path) -> None:
    """Two LoRAs with an alpha that is not their rank; share 0 and 1 of a merge are the two runs."""

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
        merging.read_update({"a.lora_A.weight": torch.ones(1, 1)}, {"a": 1.0})


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"alpha_pattern": {"q_proj": 1}},
        {"rank_pattern": {"layers.0.self_attn.v_proj": 1}},
    ],
    ids=["plain", "rslora", "alpha_pattern", "rank_pattern"],
)
def test_one_lora_of_any_settings_comes_back(settings: dict[str, Any], tmp_path: Path) -> None:
    """As a PEFT folder of a language model; what it is merged from and to, plain transformers loads."""
    from peft import get_peft_model

    model = get_peft_model(
        llama(), LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj"], **settings)
    )
    for k, parameter in enumerate(lora.trainable(model)):
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(k))
    model.save_pretrained(tmp_path / "lora")
    merge_command.main(
        [str(tmp_path / "lora"), "--method", "linear", "--weights", "1", "--out", str(tmp_path / "one")]
    )

    def logits(folder: Path | None) -> Tensor:
        plain = llama()
        if folder is not None:
            plain.load_adapter(str(folder))
        with torch.no_grad():
            found: Tensor = plain(torch.arange(5)[None]).logits
        return found

    assert_close(logits(tmp_path / "one"), logits(tmp_path / "lora"), rtol=1e-5, atol=1e-6)
    assert float((logits(tmp_path / "one") - logits(None)).abs().max()) > 1e-2
    prefix, update = read_lora(tmp_path / "one")
    assert prefix == "base_model.model"
    assert {down.shape[0] for down, _ in update.values()} == {4}


def test_one_lora_of_a_pipeline_with_patterns_comes_back_in_plain_diffusers(tmp_path: Path) -> None:
    adapter = ImageAdapter(stable_diffusion_3(), **SIZE)
    denoiser = adapter.generator.policy
    config = LoraConfig(
        r=2,
        lora_alpha=6,
        target_modules=["to_q", "to_v"],
        use_rslora=True,
        rank_pattern={"to_v": 3},
        alpha_pattern={"to_q": 1},
    )
    denoiser.add_adapter(config)  # type: ignore[operator]
    for k, parameter in enumerate(lora.trainable(denoiser)):
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(k))
    adapter.save_lora(tmp_path / "lora")
    prefix, update = read_lora(tmp_path / "lora")
    write_lora(tmp_path / "one", prefix, merging.linear([update], [1.0]))
    assert_close(pixels(tmp_path / "one"), pixels(tmp_path / "lora"), rtol=0, atol=1e-5)
    plain = pixels(None)
    assert float((pixels(tmp_path / "one") - plain).abs().max()) > 2 / 255


def test_what_is_more_than_a_lora_is_refused(tmp_path: Path) -> None:
    from peft import get_peft_model

    get_peft_model(llama(), LoraConfig(r=1, target_modules=["q_proj"], use_dora=True)).save_pretrained(
        tmp_path
    )
    with pytest.raises(ConfigError, match="not a plain LoRA"):
        read_lora(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "VERA"}')
    with pytest.raises(ConfigError, match="no LoRA but VERA"):
        read_lora(tmp_path)
