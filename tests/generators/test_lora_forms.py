"""A LoRA in PEFT's own form, and in the weights themselves: both are the function that was trained."""

from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor
from torch.testing import assert_close

from mmalign.adapters.image import ImageAdapter
from mmalign.generators import lora
from tests.generators.small_pipelines import stable_diffusion

SIZE = {"height": 16, "width": 16}


def drawn(adapter: ImageAdapter) -> Tensor:
    return adapter.generator.sample(["a red circle"], seeds=[3], steps=2, **SIZE)


def trained() -> ImageAdapter:
    adapter = ImageAdapter(stable_diffusion(), **SIZE)
    adapter.generator.attach_lora(rank=2, alpha=6.0)  # a scale of 3, so that one forgotten is seen
    for seed, parameter in enumerate(lora.trainable(adapter.generator.policy)):
        parameter.data.normal_(std=0.3, generator=torch.Generator().manual_seed(seed))
    return adapter


def test_merging_changes_no_output_and_leaves_plain_layers() -> None:
    adapter = trained()
    before, with_lora = drawn(ImageAdapter(stable_diffusion(), **SIZE)), drawn(adapter)
    assert (before - with_lora).abs().max() > 0.01
    names = set(dict(stable_diffusion().unet.named_parameters()))
    adapter.generator.merge_lora()
    assert_close(drawn(adapter), with_lora, atol=1e-4, rtol=0)
    assert not lora.tuner_layers(adapter.generator.policy)
    assert set(dict(adapter.generator.policy.named_parameters())) == names
    assert not getattr(adapter.generator.policy, "_hf_peft_config_loaded", False)


def test_the_form_of_peft_is_loaded_by_peft_alone(tmp_path: Path) -> None:
    adapter = trained()
    lora.save_peft(adapter.generator.policy, tmp_path)
    plain = ImageAdapter(stable_diffusion(), **SIZE)
    PeftModel.from_pretrained(plain.generator.policy, tmp_path)
    assert_close(drawn(plain), drawn(adapter), atol=1e-5, rtol=0)
