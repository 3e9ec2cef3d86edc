"""Align the embedded generator of views by reward-weighted regression on its own scored samples."""

from mmalign.methods.configs import OwnSamples, RWRConfig
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="scene3d",
    model="embedded/shapes-views",
    reward=("embedded/solids-clip-views", "view-consistency:50"),
    heldout_reward="shapes-views-truth",
    prompts="embedded/shapes-views-train",
    heldout_prompts="embedded/shapes-views-heldout",
    method=RWRConfig(temperature=0.5, own=OwnSamples(prompts=225, group_size=8)),
    train=TrainConfig(
        steps=300,
        batch_size=32,
        micro_batch_size=32,
        learning_rate=2e-3,
        lr_schedule="linear",
        lora_rank=16,
        checkpoint_every=25,
    ),
    sampling=SamplingConfig(batch_size=32),
    evaluation=EvaluationConfig(n=256, every=50, glance=48),
)
