"""Distil the embedded speech generator into half its layers while a small recogniser is rewarded."""

from mmalign.methods.configs import OwnSamples, TokenRewardDistillationConfig
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="speech",
    model="embedded/commands",
    reward=("embedded/commands-asr",),
    heldout_reward="commands-words",
    prompts="embedded/commands-train",
    heldout_prompts="embedded/commands-heldout",
    method=TokenRewardDistillationConfig(
        teacher_steps=160, reward_weight=0.3, group_size=8, own=OwnSamples(prompts=200, group_size=4)
    ),
    train=TrainConfig(
        steps=240, batch_size=64, micro_batch_size=64, learning_rate=1e-3, lora_rank=16, checkpoint_every=20
    ),
    sampling=SamplingConfig(batch_size=64),
    evaluation=EvaluationConfig(n=256),
)
