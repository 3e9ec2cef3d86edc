"""Align the embedded shapes generator with Flow-GRPO."""

from mmalign.methods.configs import FlowGRPOConfig
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    name="image/flow_grpo",
    model="embedded/shapes-flow",
    reward=("embedded/shapes-clip",),
    heldout_reward="shapes-truth",
    prompts="embedded/shapes-train",
    heldout_prompts="embedded/shapes-heldout",
    method=FlowGRPOConfig(group_size=8, updates_per_rollout=2, rollout_steps=8, kl_weight=0.0),
    train=TrainConfig(
        steps=80, batch_size=32, micro_batch_size=64, learning_rate=3e-4, lora_rank=16, checkpoint_every=10
    ),
    sampling=SamplingConfig(steps=16, guidance=1.0, max_sequence_length=1, batch_size=32),
    evaluation=EvaluationConfig(n=512, every=20, glance=48),
)
