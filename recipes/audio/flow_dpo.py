"""Align the embedded tones diffusion with DPO on pairs that a small CLAP prefers.

This model is a diffusion, so the loss is Diffusion-DPO's, Flow-DPO's own in another parametrisation.
"""

from mmalign.methods.configs import DiffusionDPOConfig, OwnPairs
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="audio",
    model="embedded/tones",
    reward=("embedded/tones-clap",),
    heldout_reward="tones-truth",
    prompts="embedded/tones-train",
    heldout_prompts="embedded/tones-heldout",
    method=DiffusionDPOConfig(beta=60.0, own=OwnPairs(prompts=400, group_size=4, pairs_per_prompt=2)),
    train=TrainConfig(
        steps=300, batch_size=16, micro_batch_size=16, learning_rate=5e-4, lora_rank=16, checkpoint_every=25
    ),
    sampling=SamplingConfig(batch_size=32),
    evaluation=EvaluationConfig(n=512, every=50, glance=128),
)
