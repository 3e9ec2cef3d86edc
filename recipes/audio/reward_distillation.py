"""Distil the embedded tones diffusion to 3 steps while a small CLAP is rewarded."""

from mmalign.methods.configs import OwnSamples, RewardDistillationConfig
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="audio",
    model="embedded/tones",
    reward=("embedded/tones-clap",),
    heldout_reward="tones-truth",
    prompts="embedded/tones-train",
    heldout_prompts="embedded/tones-heldout",
    method=RewardDistillationConfig(
        rollout_steps=16, student_steps=3, reward_weight=0.3, own=OwnSamples(prompts=400, group_size=2)
    ),
    train=TrainConfig(
        steps=500, batch_size=24, micro_batch_size=24, learning_rate=1e-3, lora_rank=16, checkpoint_every=25
    ),
    sampling=SamplingConfig(batch_size=32),
    evaluation=EvaluationConfig(n=512, every=0, glance=48),
)
