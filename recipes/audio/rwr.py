"""Align the embedded tones diffusion by reward-weighted regression on its own scored samples.

The learning rate falls to zero: weighted imitation has no reference that would average the noise of its steps out.
"""

from mmalign.methods.configs import OwnSamples, RWRConfig
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="audio",
    model="embedded/tones",
    reward=("embedded/tones-clap",),
    heldout_reward="tones-truth",
    prompts="embedded/tones-train",
    heldout_prompts="embedded/tones-heldout",
    method=RWRConfig(temperature=0.3, own=OwnSamples(prompts=700, group_size=8)),
    train=TrainConfig(
        steps=400,
        batch_size=32,
        micro_batch_size=32,
        learning_rate=1e-3,
        lr_schedule="linear",
        lora_rank=16,
        checkpoint_every=25,
    ),
    sampling=SamplingConfig(batch_size=32),
    evaluation=EvaluationConfig(n=512, every=50, glance=48),
)
