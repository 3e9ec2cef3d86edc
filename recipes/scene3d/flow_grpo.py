"""Align the embedded generator of views with Flow-GRPO; the samples of a group begin at one noise."""

from mmalign.methods.configs import FlowGRPOConfig
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="scene3d",
    model="embedded/shapes-views",
    reward=("embedded/solids-clip-views", "view-consistency:50"),
    heldout_reward="shapes-views-truth",
    prompts="embedded/shapes-views-train",
    heldout_prompts="embedded/shapes-views-heldout",
    method=FlowGRPOConfig(
        group_size=8, rollout_steps=6, noise_level=1.0, same_noise=True, clip=1e-2, kl_weight=0.0
    ),
    train=TrainConfig(
        steps=60, batch_size=64, micro_batch_size=64, learning_rate=2e-3, lora_rank=16, checkpoint_every=10
    ),
    sampling=SamplingConfig(batch_size=32),
    evaluation=EvaluationConfig(n=256, every=20, glance=48),
)
