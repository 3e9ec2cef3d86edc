"""Align the embedded speech generator with DRO on tokens: its best samples against its own."""

from mmalign.methods.configs import OwnDemonstrations, TokenDROConfig
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="speech",
    model="embedded/commands",
    reward=("embedded/commands-asr",),
    heldout_reward="commands-words",
    prompts="embedded/commands-train",
    heldout_prompts="embedded/commands-heldout",
    method=TokenDROConfig(
        margin=1.0, updates_per_rollout=4, own=OwnDemonstrations(prompts=200, group_size=4)
    ),
    train=TrainConfig(
        steps=60, batch_size=32, micro_batch_size=32, learning_rate=1e-3, lora_rank=16, checkpoint_every=20
    ),
    sampling=SamplingConfig(batch_size=64),
    evaluation=EvaluationConfig(n=256),
)
