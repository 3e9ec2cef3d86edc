"""Align the embedded tones diffusion by reward-weighted regression on its own scored samples."""

from mmalign.methods.configs import OwnSamples, RWRConfig
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    name="audio/rwr",
    model="embedded/tones",
    reward=("embedded/tones-clap",),
    heldout_reward="tones-truth",
    prompts="embedded/tones-train",
    heldout_prompts="embedded/tones-heldout",
    method=RWRConfig(temperature=0.5, own=OwnSamples(prompts=400, group_size=4)),
    train=TrainConfig(
        steps=250, batch_size=32, micro_batch_size=32, learning_rate=1e-3, lora_rank=16, checkpoint_every=25
    ),
    sampling=SamplingConfig(steps=16, guidance=1.0, batch_size=32),
    evaluation=EvaluationConfig(n=512, every=50, glance=48),
)
