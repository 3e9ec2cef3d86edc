"""Align the embedded shapes generator with DRaFT: the gradient of a small CLIP, through the last steps."""

from mmalign.methods.configs import DRaFTConfig
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="image",
    model="embedded/shapes-flow",
    reward=("embedded/shapes-clip",),
    heldout_reward="shapes-truth",
    prompts="embedded/shapes-train",
    heldout_prompts="embedded/shapes-heldout",
    method=DRaFTConfig(rollout_steps=8, last_steps=8),
    train=TrainConfig(
        steps=60, batch_size=16, micro_batch_size=16, learning_rate=1e-3, lora_rank=16, checkpoint_every=10
    ),
    sampling=SamplingConfig(batch_size=32),
    evaluation=EvaluationConfig(n=512, every=20, glance=48),
)
