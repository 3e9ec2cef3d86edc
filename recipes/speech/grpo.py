"""Align the embedded speech generator with GRPO on tokens."""

from mmalign.methods.configs import TokenGRPOConfig
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="speech",
    model="embedded/commands",
    reward=("embedded/commands-asr",),
    heldout_reward="commands-words",
    prompts="embedded/commands-train",
    heldout_prompts="embedded/commands-heldout",
    method=TokenGRPOConfig(group_size=8, kl_weight=0.0, updates_per_rollout=2),
    train=TrainConfig(
        steps=40, batch_size=64, micro_batch_size=64, learning_rate=1e-3, lora_rank=16, checkpoint_every=10
    ),
    sampling=SamplingConfig(batch_size=64),
    evaluation=EvaluationConfig(n=256),
)
