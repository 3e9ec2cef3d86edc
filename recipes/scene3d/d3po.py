"""Align the embedded generator of views with D3PO on pairs of its own trajectories."""

from mmalign.methods.configs import D3POConfig
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="scene3d",
    model="embedded/shapes-views",
    reward=("embedded/solids-clip-views", "view-consistency:50"),
    heldout_reward="shapes-views-truth",
    prompts="embedded/shapes-views-train",
    heldout_prompts="embedded/shapes-views-heldout",
    method=D3POConfig(group_size=4, rollout_steps=6, window=2),
    train=TrainConfig(
        steps=60,
        batch_size=64,
        micro_batch_size=64,
        learning_rate=2e-3,
        lr_schedule="linear",
        lora_rank=16,
        checkpoint_every=10,
    ),
    sampling=SamplingConfig(batch_size=32),
    evaluation=EvaluationConfig(n=256, every=20, glance=48),
)
