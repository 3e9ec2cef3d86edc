"""Align the embedded generator of views with Diffusion-DRO: its best samples against its own trajectories."""

from mmalign.methods.configs import DROConfig, OwnDemonstrations
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="scene3d",
    model="embedded/shapes-views",
    reward=("embedded/solids-clip-views", "view-consistency:50"),
    heldout_reward="shapes-views-truth",
    prompts="embedded/shapes-views-train",
    heldout_prompts="embedded/shapes-views-heldout",
    method=DROConfig(rollout_steps=16, own=OwnDemonstrations(prompts=225, group_size=8)),
    train=TrainConfig(
        steps=200, batch_size=16, micro_batch_size=16, learning_rate=2e-3, lora_rank=16, checkpoint_every=24
    ),
    sampling=SamplingConfig(batch_size=32),
    evaluation=EvaluationConfig(n=256, every=50, glance=48),
)
