"""Align the embedded shapes generator with Flow-GRPO.

The samples of a group begin at one noise, as DanceGRPO has them: with so few samples a step, what differs between them
must come from the steps that are trained. From noises of their own the training reward stood still for 40 steps.
"""

from mmalign.methods.configs import FlowGRPOConfig
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="image",
    model="embedded/shapes-flow",
    reward=("embedded/shapes-clip",),
    heldout_reward="shapes-truth",
    prompts="embedded/shapes-train",
    heldout_prompts="embedded/shapes-heldout",
    method=FlowGRPOConfig(
        group_size=8, rollout_steps=6, noise_level=1.0, same_noise=True, clip=1e-2, kl_weight=0.0
    ),
    train=TrainConfig(
        steps=60, batch_size=64, micro_batch_size=64, learning_rate=2e-3, lora_rank=16, checkpoint_every=10
    ),
    sampling=SamplingConfig(batch_size=32),
    evaluation=EvaluationConfig(n=512, every=20, glance=48),
)
