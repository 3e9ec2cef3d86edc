"""Align the embedded tones diffusion with D3PO on pairs of its own trajectories."""

from mmalign.methods.configs import D3POConfig
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="audio",
    model="embedded/tones",
    reward=("embedded/tones-clap",),
    heldout_reward="tones-truth",
    prompts="embedded/tones-train",
    heldout_prompts="embedded/tones-heldout",
    method=D3POConfig(group_size=4, rollout_steps=6, window=2),
    train=TrainConfig(
        steps=100, batch_size=64, micro_batch_size=64, learning_rate=1e-3, lora_rank=16, checkpoint_every=10
    ),
    sampling=SamplingConfig(batch_size=32),
    evaluation=EvaluationConfig(n=512, every=20, glance=128),
)
