"""Align the embedded tones diffusion with Diffusion-DRO: its best samples against its own trajectories."""

from mmalign.methods.configs import DROConfig, OwnDemonstrations
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="audio",
    model="embedded/tones",
    reward=("embedded/tones-clap",),
    heldout_reward="tones-truth",
    prompts="embedded/tones-train",
    heldout_prompts="embedded/tones-heldout",
    method=DROConfig(rollout_steps=16, own=OwnDemonstrations(prompts=400, group_size=8)),
    train=TrainConfig(
        steps=400, batch_size=16, micro_batch_size=16, learning_rate=2e-3, lora_rank=16, checkpoint_every=24
    ),
    sampling=SamplingConfig(batch_size=32),
    evaluation=EvaluationConfig(n=512, every=50, glance=128),
)
