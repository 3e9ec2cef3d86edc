"""Align the embedded shapes generator by reward-weighted regression on its own scored samples.

The learning rate falls to zero: weighted imitation has no reference that would average the noise of its steps out.
"""

from mmalign.methods.configs import OwnSamples, RWRConfig
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="image",
    model="embedded/shapes-flow",
    reward=("embedded/shapes-clip",),
    heldout_reward="shapes-truth",
    prompts="embedded/shapes-train",
    heldout_prompts="embedded/shapes-heldout",
    method=RWRConfig(temperature=0.5, own=OwnSamples(prompts=300, group_size=8)),
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
    evaluation=EvaluationConfig(n=512, every=50, glance=48),
)
