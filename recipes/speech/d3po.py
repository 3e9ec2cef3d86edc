"""Align the embedded speech generator with D3PO on pairs of its own new samples, token by token."""

from mmalign.methods.configs import TokenD3POConfig
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="speech",
    model="embedded/commands",
    reward=("embedded/commands-asr",),
    heldout_reward="commands-words",
    prompts="embedded/commands-train",
    heldout_prompts="embedded/commands-heldout",
    method=TokenD3POConfig(group_size=4, beta=1.0, clamp=0.5, updates_per_rollout=2),
    train=TrainConfig(
        steps=40, batch_size=48, micro_batch_size=48, learning_rate=1e-3, lora_rank=16, checkpoint_every=10
    ),
    sampling=SamplingConfig(batch_size=64),
    evaluation=EvaluationConfig(n=256),
)
