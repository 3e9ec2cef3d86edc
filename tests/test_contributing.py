"""The worked example of CONTRIBUTING, as it stands: its loss, its test, and a step of its method on a small flow."""

import re
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from mmalign.adapters.image import ImageAdapter
from mmalign.methods.base import Task
from mmalign.methods.configs import FlowDPOConfig
from mmalign.methods.flow_dpo import FlowDPO
from tests.generators.small_pipelines import stable_diffusion_3
from tests.methods.conftest import SIZE, gradients, latent_pairs, moved

TEXT = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def example() -> dict[str, Any]:
    """What its three blocks define."""
    blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, Any] = {"torch": torch, "Tensor": Tensor, "ClassVar": ClassVar}
    names |= {"FlowDPO": FlowDPO, "FlowDPOConfig": FlowDPOConfig}
    for block in blocks:
        exec(block, names)  # text of this repository
    return names


def test_its_own_test_passes() -> None:
    example()["test_at_the_reference_it_is_1_and_pulls_each_side_by_beta"]()


def test_its_method_starts_at_1_and_trains_the_lora() -> None:
    names = example()
    adapter = ImageAdapter(stable_diffusion_3(), **SIZE)
    adapter.generator.attach_lora(rank=2)
    task = Task(adapter, data=latent_pairs(adapter))
    method = names["FlowExponential"](names["FlowExponentialConfig"](beta=10.0), task)
    method.check_start(size=4, seed=0)
    loss, _ = method.loss(method.batch(0, size=4, seed=0))
    assert loss.item() == 1
    assert max(float(g.abs().max()) for g in gradients(adapter, loss).values()) > 0
    moved(adapter)
    sides = method.loss(method.batch(0, size=4, seed=0))
    dpo = FlowDPO(FlowDPOConfig(beta=10.0), task)
    assert sides[0] != dpo.loss(dpo.batch(0, size=4, seed=0))[0]
