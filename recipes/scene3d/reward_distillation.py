"""Distil the embedded generator of views to 3 steps while a small CLIP is rewarded."""

from mmalign.methods.configs import OwnSamples, RewardDistillationConfig
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="scene3d",
    model="embedded/shapes-views",
    reward=("embedded/solids-clip-views",),
    heldout_reward="shapes-views-truth",
    prompts="embedded/shapes-views-train",
    heldout_prompts="embedded/shapes-views-heldout",
    method=RewardDistillationConfig(
        rollout_steps=16, student_steps=3, reward_weight=0.05, own=OwnSamples(prompts=120, group_size=2)
    ),
    train=TrainConfig(
        steps=200, batch_size=24, micro_batch_size=24, learning_rate=1e-3, lora_rank=32, checkpoint_every=25
    ),
    sampling=SamplingConfig(batch_size=32),
    evaluation=EvaluationConfig(n=256, every=0, glance=48),
)
