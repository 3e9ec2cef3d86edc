"""Align the embedded shapes generator with DRaFT: the gradient of a small CLIP, through the last steps."""

from mmalign.methods.configs import DRaFTConfig
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    name="image/draft",
    model="embedded/shapes-flow",
    reward=("embedded/shapes-clip",),
    heldout_reward="shapes-truth",
    prompts="embedded/shapes-train",
    heldout_prompts="embedded/shapes-heldout",
    method=DRaFTConfig(rollout_steps=16, last_steps=4),
    train=TrainConfig(
        steps=80, batch_size=16, micro_batch_size=16, learning_rate=3e-4, lora_rank=16, checkpoint_every=10
    ),
    sampling=SamplingConfig(steps=16, guidance=1.0, max_sequence_length=1, batch_size=32),
    evaluation=EvaluationConfig(n=512, every=20, glance=48),
)
