"""What holds of every method: a real step learns the LoRA alone, parts add up, costs are as stated, runs resume."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from mmalign.adapters.image import ImageAdapter
from mmalign.errors import ConfigError
from mmalign.generators import lora
from mmalign.methods import METHODS, configs, load_method
from mmalign.methods.base import Method, Task
from tests.methods.conftest import gradients, latent_pairs, latent_samples, moved

SIZE = 4  # rows or samples of an optimiser step
FLOW_ONLY, DIFFUSION_ONLY = ("flow_dpo",), ("diffusion_dpo",)

# Every method at its smallest; T = 3 steps, groups of 2.
SMALL: dict[str, configs.MethodConfig] = {
    "d3po": configs.D3POConfig(rollout_steps=3, noise_level=0.7, clamp=0.5),
    "diffusion_dpo": configs.DiffusionDPOConfig(beta=10.0),
    "draft": configs.DRaFTConfig(rollout_steps=3, last_steps=2, calibration=4),
    "dro": configs.DROConfig(rollout_steps=3, updates_per_rollout=2),
    "flow_dpo": configs.FlowDPOConfig(beta=10.0),
    "flow_grpo": configs.FlowGRPOConfig(rollout_steps=3, group_size=2, updates_per_rollout=2, clip=0.1),
    "nft": configs.NFTConfig(rollout_steps=3, group_size=2, times_per_sample=2),
    "refl": configs.ReFLConfig(
        rollout_steps=3, first_share=0.3, calibration=4, ceiling=50.0, reward_weight=1.0
    ),
    "reward_distillation": configs.RewardDistillationConfig(rollout_steps=4, calibration=4),
    "rwr": configs.RWRConfig(),
}


def test_every_method_is_tested() -> None:
    assert len(METHODS) == 16
    assert len(SMALL) == 10
    # Those on tokens have models of their own, in test_token_methods.
    assert sorted(SMALL) == sorted(name for name in METHODS if not name.startswith("token_"))
    assert all(METHODS[name][0] is type(config) for name, config in SMALL.items())


@pytest.fixture(params=sorted(SMALL))
def build(request: pytest.FixtureRequest, task: Task, adapter: ImageAdapter) -> Callable[..., Method]:
    """A method of each name, on each family that it knows."""
    name = request.param
    flow = adapter.generator.timesteps.kind == "flow_prediction"
    if name in (DIFFUSION_ONLY if flow else FLOW_ONLY):
        pytest.skip("of the other family")

    def method(**changes: Any) -> Method:
        config = replace(SMALL[name], **changes)
        match config.source:
            case "pairs":
                data: Any = latent_pairs(adapter)
            case "ratings":
                data = latent_samples(adapter)
            case "demonstrations":
                data = latent_samples(adapter, scored=False)
            case _:
                data = None
        made: Method = load_method(name)(config, replace(task, data=data))
        return made

    return method


def test_the_start_is_as_it_has_to_be(build: Callable[..., Method]) -> None:
    build().check_start(size=SIZE, seed=0)


def test_a_step_moves_the_lora_and_nothing_else(build: Callable[..., Method], adapter: ImageAdapter) -> None:
    method = build()
    loss, metrics = method.loss(method.batch(0, size=SIZE, seed=0))
    assert loss.shape == ()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(torch.as_tensor(value)) for value in metrics.values())
    assert all(not torch.as_tensor(value).requires_grad for value in metrics.values())
    found = gradients(adapter, loss)
    assert found
    assert all("lora" in name for name in found)
    assert max(float(g.abs().max()) for g in found.values()) > 0


def test_parts_of_a_batch_add_up_to_its_gradient(build: Callable[..., Method], adapter: ImageAdapter) -> None:
    method = build()
    batch = method.batch(0, size=SIZE, seed=0)
    whole = gradients(adapter, method.loss(batch)[0])
    cut = len(batch) // 2 - 1 or 1
    parts = [batch.part(0, cut), batch.part(cut, len(batch))]
    assert sum(map(len, parts)) == len(batch)
    summed = gradients(
        adapter, torch.stack([method.loss(part)[0] * len(part) / len(batch) for part in parts]).sum()
    )
    largest = max(float(g.abs().max()) for g in whole.values())
    for name, gradient in whole.items():
        assert_close(summed[name], gradient, rtol=1e-3, atol=1e-3 * largest)


def test_a_step_costs_what_its_settings_say(build: Callable[..., Method], adapter: ImageAdapter) -> None:
    method: Any = build()
    method.state()  # measures the reward's unit where there is one: once a run, not once a step
    stated = method.config.passes(SIZE, guided=True)
    forward = backward = 0

    def count(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        nonlocal forward, backward
        first = args[0] if args else kwargs[adapter.generator.latents_name]
        forward, backward = (
            (forward, backward + len(first)) if torch.is_grad_enabled() else (forward + len(first), backward)
        )

    handle = adapter.generator.policy.register_forward_hook(count, with_kwargs=True)
    try:
        for step in range(method.steps_per_rollout):
            method.loss(method.batch(step, size=SIZE, seed=0))
            method.after_step(step + 1)
    finally:
        handle.remove()
    steps = method.steps_per_rollout
    assert backward == stated.backward * steps
    # ReFL walks to a random step, so it may cost less than it says.
    assert forward <= stated.forward * steps
    assert forward == stated.forward * steps or type(method.config) is configs.ReFLConfig


def test_a_batch_depends_on_step_seed_and_weights_alone(
    build: Callable[..., Method], adapter: ImageAdapter
) -> None:
    moved(adapter)  # at the start some losses are a constant
    first = build()
    torch.manual_seed(1)
    losses = [float(first.loss(first.batch(step, size=SIZE, seed=3))[0]) for step in range(3)]
    again = build()
    again.load_state({name: tensor.clone() for name, tensor in first.state().items()})
    torch.manual_seed(2)
    for step in (2, 0):
        assert float(again.loss(again.batch(step, size=SIZE, seed=3))[0]) == losses[step]
    other = build()
    assert float(other.loss(other.batch(0, size=SIZE, seed=4))[0]) != losses[0]


def test_training_improves_what_is_optimised(build: Callable[..., Method], adapter: ImageAdapter) -> None:
    """A few steps on one batch lower its own loss."""
    method = build()
    batch = method.batch(0, size=SIZE, seed=0)
    optimizer = torch.optim.SGD(lora.trainable(adapter.generator.policy), lr=1.0)
    before, _ = method.loss(batch)
    found = gradients(adapter, before)
    norm = float(torch.stack([g.square().sum() for g in found.values()]).sum().sqrt())
    for group in optimizer.param_groups:
        group["lr"] = 1e-2 / norm
    optimizer.step()
    with torch.no_grad():
        after, _ = method.loss(batch)
    assert after < before


def test_a_reward_without_gradient_is_refused_where_it_is_needed(task: Task, adapter: ImageAdapter) -> None:
    from mmalign.rewards.cards import load_reward

    black_box = replace(task, reward=load_reward("placebo"))
    method: Any = load_method("draft")(SMALL["draft"], black_box)
    with pytest.raises(ConfigError, match="the reward 'placebo' has none; take a differentiable one"):
        method.loss(method.batch(0, size=2, seed=0))


def test_a_target_makes_draft_the_published_alignprop(task: Task, adapter: ImageAdapter) -> None:
    """Far below its target a sample is pulled up as by DRaFT, far above it down, by |target - R| in std of R."""
    whole = configs.DRaFTConfig(rollout_steps=3, last_steps=3, calibration=4, truncation="random")
    found: dict[float | None, dict[str, torch.Tensor]] = {}
    losses: dict[float | None, torch.Tensor] = {}
    method: Any = None
    for target in (None, 1e4, -1e4):
        method = load_method("draft")(replace(whole, target=target), task)
        batch = method.batch(0, size=2, seed=0)
        loss, _ = method.loss(batch)
        found[target], losses[target] = gradients(adapter, loss), loss.detach()
    mean, std = method.unit()
    assert_close(float(losses[1e4]), (1e4 - mean) / std + float(losses[None]), rtol=1e-4, atol=0)
    assert any(bool(g.abs().max() > 0) for g in found[None].values())
    for name, gradient in found[None].items():
        assert_close(found[1e4][name], gradient, rtol=1e-3, atol=1e-6)
        assert_close(found[-1e4][name], -gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["flow_grpo", "d3po", "nft"])
def test_groups_that_do_not_fit_the_batch_are_refused(name: str, task: Task) -> None:
    method: Any = load_method(name)(replace(SMALL[name], updates_per_rollout=1), task)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"no whole groups of method\.group_size = 2"):
        method.batch(0, size=3, seed=0)
