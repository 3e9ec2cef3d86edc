"""Align the embedded video generator by reward-weighted regression on its own scored samples, as LiFT does video."""

from mmalign.methods.configs import OwnSamples, RWRConfig
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="video",
    model="embedded/shapes-video",
    reward=("embedded/shapes-video-clip",),
    heldout_reward="shapes-video-truth",
    prompts="embedded/moving-shapes-train",
    heldout_prompts="embedded/moving-shapes-heldout",
    method=RWRConfig(temperature=0.5, own=OwnSamples(prompts=300, group_size=8)),
    train=TrainConfig(
        steps=250,
        batch_size=32,
        micro_batch_size=32,
        learning_rate=2e-3,
        lr_schedule="linear",
        lora_rank=16,
        checkpoint_every=25,
    ),
    sampling=SamplingConfig(batch_size=64),
    evaluation=EvaluationConfig(n=384, every=50, glance=48),
)
