"""Align the embedded shapes diffusion with D3PO on pairs of its own trajectories."""

from mmalign.methods.configs import D3POConfig
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="image",
    model="embedded/shapes-diffusion",
    reward=("embedded/shapes-clip",),
    heldout_reward="shapes-truth",
    prompts="embedded/shapes-train",
    heldout_prompts="embedded/shapes-heldout",
    method=D3POConfig(rollout_steps=6),
    train=TrainConfig(
        steps=60, batch_size=32, micro_batch_size=32, learning_rate=1e-3, lora_rank=16, checkpoint_every=10
    ),
    sampling=SamplingConfig(batch_size=32),
    evaluation=EvaluationConfig(n=512, every=20, glance=48),
)
