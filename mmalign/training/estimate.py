"""What a recipe will cost, before it runs: denoiser passes by stage, and memory from a measured micro-batch."""

from typing import Any

import torch
from torch import Tensor

from mmalign.data.prompts import read_prompts
from mmalign.generators.tokens import TokenGenerator
from mmalign.training.align import load_for_training
from mmalign.training.base_model import fitted, settled
from mmalign.training.recipe import Recipe


def estimate(recipe: Recipe) -> dict[str, Any]:
    """Passes of one sample through the denoiser by stage, and megabytes of memory for training.

    Activations are measured: one sample goes forward through the policy while everything kept for its backward is
    counted.
    """
    adapter = load_for_training(settled(recipe))
    recipe = fitted(settled(recipe), adapter.generator)
    generator = adapter.generator
    on_tokens = isinstance(generator, TokenGenerator)
    guided = on_tokens or generator.guidance.layout != "none"
    sample = (recipe.sampling.steps or 1) * (2 if guided and recipe.sampling.guidance != 1 else 1)
    own = getattr(recipe.method, "own", None)
    given = recipe.preferences or recipe.ratings or recipe.demonstrations
    steps, drawn, judged = recipe.train.steps * recipe.rounds, 0, 2
    if recipe.labels is not None:
        drawn, judged = 2 * recipe.pairs_per_round * recipe.rounds, 1 + recipe.rounds
    elif own is not None and given is None:
        drawn = min(own.prompts, len(read_prompts(str(recipe.prompts)))) * own.group_size
    glances = steps // recipe.evaluation.every if recipe.evaluation.every else 0
    passes = recipe.method.passes(recipe.train.batch_size, guided=guided)
    parts = [generator.model, generator.teacher] if on_tokens else generator.pipeline.components.values()
    weights = sum(_bytes(p) for m in parts if isinstance(m, torch.nn.Module) for p in m.parameters())
    lora = sum(_bytes(p) for p in generator.policy.parameters() if p.requires_grad)
    rows = recipe.train.micro_batch_size * recipe.method.passes_per_row
    activations = rows * _kept_for_backward(adapter, recipe)
    return {
        "denoiser_passes": {
            "held-out samples, before and after": judged * recipe.evaluation.n * sample,
            "training samples": drawn * sample,
            "training, forward and backward": steps * passes.backward,
            "training, forward only": steps * passes.forward,
            "glances while training": glances * recipe.evaluation.glance * sample,
        },
        "memory_mb": {
            "frozen weights": _mb(weights - lora),
            "LoRA, its gradient and moments": _mb(4 * lora),
            "activations of a micro-batch": _mb(activations),
        },
    }


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _mb(count: int) -> float:
    return round(count / 2**20, 1)


def _kept_for_backward(adapter: Any, recipe: Recipe) -> int:
    """Bytes that one sample's forward keeps for its backward, each storage once, weights left out."""
    generator = adapter.generator
    conditioning = adapter.condition(["a"], **recipe.sampling.pipeline_options())
    weights = {p.data_ptr() for p in generator.policy.parameters()}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def forward() -> Tensor:
        if isinstance(generator, TokenGenerator):
            tokens = torch.zeros(1, recipe.sampling.frames or adapter.frames, *conditioning.latent_shape)
            return generator.logits(tokens.long(), conditioning)
        noisy = torch.zeros(1, *conditioning.latent_shape, device=generator.device)
        first = generator.timesteps.at(torch.zeros(1, dtype=torch.long))
        output: Tensor = generator.predict(noisy, first, conditioning).output
        return output

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        # The output is held, so that no storage is freed and counted twice.
        output = forward()
    del output
    return sum(kept.values())
