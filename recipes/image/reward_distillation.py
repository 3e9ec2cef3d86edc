"""Distil the embedded shapes generator to 3 steps while a small CLIP is rewarded."""

from mmalign.methods.configs import OwnSamples, RewardDistillationConfig
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="image",
    model="embedded/shapes-flow",
    reward=("embedded/shapes-clip",),
    heldout_reward="shapes-truth",
    prompts="embedded/shapes-train",
    heldout_prompts="embedded/shapes-heldout",
    method=RewardDistillationConfig(
        rollout_steps=16, student_steps=3, reward_weight=0.05, own=OwnSamples(prompts=400, group_size=2)
    ),
    train=TrainConfig(
        steps=200, batch_size=24, micro_batch_size=24, learning_rate=1e-3, lora_rank=32, checkpoint_every=25
    ),
    sampling=SamplingConfig(batch_size=32),
    evaluation=EvaluationConfig(n=512, every=0, glance=48),
)
