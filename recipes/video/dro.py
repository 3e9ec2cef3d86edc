"""Align the embedded video generator with Diffusion-DRO: its best samples against its own trajectories."""

from mmalign.methods.configs import DROConfig, OwnDemonstrations
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="video",
    model="embedded/shapes-video",
    reward=("embedded/shapes-video-clip",),
    heldout_reward="shapes-video-truth",
    prompts="embedded/moving-shapes-train",
    heldout_prompts="embedded/moving-shapes-heldout",
    method=DROConfig(rollout_steps=8, own=OwnDemonstrations(prompts=400, group_size=4)),
    train=TrainConfig(
        steps=200, batch_size=32, micro_batch_size=32, learning_rate=2e-3, lora_rank=16, checkpoint_every=24
    ),
    sampling=SamplingConfig(batch_size=64),
    evaluation=EvaluationConfig(n=384, every=50, glance=48),
)
