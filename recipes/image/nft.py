"""Align the embedded shapes generator with DiffusionNFT."""

from mmalign.methods.configs import NFTConfig
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="image",
    model="embedded/shapes-flow",
    reward=("embedded/shapes-clip",),
    heldout_reward="shapes-truth",
    prompts="embedded/shapes-train",
    heldout_prompts="embedded/shapes-heldout",
    method=NFTConfig(group_size=8, rollout_steps=10),
    train=TrainConfig(
        steps=60, batch_size=64, micro_batch_size=64, learning_rate=2e-3, lora_rank=16, checkpoint_every=10
    ),
    sampling=SamplingConfig(batch_size=32),
    evaluation=EvaluationConfig(n=512, every=20, glance=48),
)
