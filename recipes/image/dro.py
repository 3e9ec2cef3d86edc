"""Align the embedded shapes diffusion with Diffusion-DRO: its best samples against its own trajectories."""

from mmalign.methods.configs import DROConfig, OwnDemonstrations
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="image",
    model="embedded/shapes-diffusion",
    reward=("embedded/shapes-clip",),
    heldout_reward="shapes-truth",
    prompts="embedded/shapes-train",
    heldout_prompts="embedded/shapes-heldout",
    method=DROConfig(rollout_steps=16, own=OwnDemonstrations(prompts=300, group_size=4)),
    train=TrainConfig(
        steps=150, batch_size=16, micro_batch_size=16, learning_rate=1e-3, lora_rank=16, checkpoint_every=24
    ),
    sampling=SamplingConfig(batch_size=32),
    evaluation=EvaluationConfig(n=512, every=50, glance=48),
)
