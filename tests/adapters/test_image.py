"""The adapter that notebooks import, on a small random pipeline and on the embedded one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

import mmalign
from mmalign.adapters.image import ImageAdapter
from mmalign.errors import ConfigError, UnknownNameError
from tests.generators.small_pipelines import flux, stable_diffusion, stable_diffusion_3, stable_diffusion_xl

SIZE = {"height": 16, "width": 16}
OPTIONS: dict[str, Any] = {"steps": 2, "guidance": 2.0, **SIZE}
PROMPTS = ["a red circle", "a blue star"]


def pictures(adapter: ImageAdapter) -> torch.Tensor:
    return torch.stack([p.pixels for p in adapter.generate(PROMPTS, seeds=[0, 1], **OPTIONS)])


@pytest.mark.parametrize("build", [flux, stable_diffusion, stable_diffusion_3, stable_diffusion_xl])
def test_a_saved_lora_draws_the_same_in_plain_diffusers(build: Callable[[], Any], tmp_path: Path) -> None:
    adapter = ImageAdapter(build(), **SIZE)
    adapter.generator.attach_lora(rank=2, alpha=4)
    before = pictures(adapter)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for name, parameter in adapter.generator.policy.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    trained = pictures(adapter)
    assert float((trained - before).abs().max()) > 2 / 255
    adapter.save_lora(tmp_path)
    plain = build()
    plain.load_lora_weights(tmp_path)
    plain.set_progress_bar_config(disable=True)
    two_calls = {"true_cfg_scale": 2.0, "negative_prompt": [" ", " "]}
    drawn = plain(
        PROMPTS,
        num_inference_steps=2,
        **(two_calls if build is flux else {"guidance_scale": 2.0}),
        generator=[torch.Generator("cpu").manual_seed(i) for i in range(2)],
        output_type="pt",
        **SIZE,
    ).images
    torch.testing.assert_close(drawn, trained, rtol=0, atol=1 / 255)


def test_loading_a_lora_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    adapter = ImageAdapter(stable_diffusion(), **SIZE)
    adapter.generator.attach_lora(rank=2)
    adapter.save_lora(tmp_path)
    other = ImageAdapter(stable_diffusion_3(), **SIZE)
    with pytest.raises(ConfigError, match="nothing of this LoRA fits"):
        other.load_lora(str(tmp_path))
    with pytest.raises(ConfigError, match=r"no pytorch_lora_weights\.safetensors here"):
        other.load_lora(tmp_path / "nowhere")


def test_the_embedded_model_loads_by_name_and_in_plain_diffusers() -> None:
    adapter = mmalign.load_adapter("embedded/shapes-flow")
    ours = adapter.generate(["a small red circle on the left"], seeds=[3], steps=2, max_sequence_length=1)
    folder = adapter.generator.pipeline.config["_name_or_path"]
    plain = DiffusionPipeline.from_pretrained(folder)
    picture = plain(
        "a small red circle on the left",
        num_inference_steps=2,
        guidance_scale=1.0,
        max_sequence_length=1,
        generator=torch.Generator("cpu").manual_seed(3),
        output_type="pt",
    ).images[0]
    torch.testing.assert_close(ours[0].pixels, picture, rtol=0, atol=1 / 255)
    assert sum(f.stat().st_size for f in Path(folder).rglob("*")) < 8.4e6


def test_unknown_models_are_named() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'embedded/shapes-flow'"):
        mmalign.load_adapter("embedded/shapes-flw")
    with pytest.raises(ConfigError, match="no such folder"):
        mmalign.load_adapter("./nowhere")
    with pytest.raises(UnknownNameError, match="modality"):
        mmalign.load_adapter("embedded/shapes-flow", modality="smell")
