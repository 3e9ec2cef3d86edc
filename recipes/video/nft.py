"""Align the embedded video generator with DiffusionNFT."""

from mmalign.methods.configs import NFTConfig
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="video",
    model="embedded/shapes-video",
    reward=("embedded/shapes-video-clip",),
    heldout_reward="shapes-video-truth",
    prompts="embedded/moving-shapes-train",
    heldout_prompts="embedded/moving-shapes-heldout",
    method=NFTConfig(group_size=8, rollout_steps=10),
    train=TrainConfig(
        steps=60, batch_size=64, micro_batch_size=64, learning_rate=2e-3, lora_rank=16, checkpoint_every=10
    ),
    sampling=SamplingConfig(batch_size=64),
    evaluation=EvaluationConfig(n=384, every=20, glance=48),
)
