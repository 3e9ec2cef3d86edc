"""Align the embedded shapes diffusion with ReFL: the gradient of a small CLIP, through one late step."""

from mmalign.methods.configs import ReFLConfig
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="image",
    model="embedded/shapes-diffusion",
    reward=("embedded/shapes-clip",),
    heldout_reward="shapes-truth",
    prompts="embedded/shapes-train",
    heldout_prompts="embedded/shapes-heldout",
    method=ReFLConfig(rollout_steps=16, first_share=0.2, reward_weight=1.0),
    train=TrainConfig(
        steps=80, batch_size=16, micro_batch_size=16, learning_rate=1e-3, lora_rank=16, checkpoint_every=10
    ),
    sampling=SamplingConfig(batch_size=32),
    evaluation=EvaluationConfig(n=512, every=25, glance=48),
)
