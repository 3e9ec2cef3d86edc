"""Align the embedded shapes diffusion with Diffusion-DPO on pairs that a small CLIP prefers."""

from mmalign.methods.configs import DiffusionDPOConfig, OwnPairs
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="image",
    model="embedded/shapes-diffusion",
    reward=("embedded/shapes-clip",),
    heldout_reward="shapes-truth",
    prompts="embedded/shapes-train",
    heldout_prompts="embedded/shapes-heldout",
    method=DiffusionDPOConfig(beta=200.0, own=OwnPairs(prompts=400, group_size=4, pairs_per_prompt=2)),
    train=TrainConfig(
        steps=200, batch_size=16, micro_batch_size=16, learning_rate=6e-4, lora_rank=16, checkpoint_every=25
    ),
    sampling=SamplingConfig(batch_size=32),
    evaluation=EvaluationConfig(n=512, every=50, glance=48),
)
