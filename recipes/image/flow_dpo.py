"""Align the embedded shapes generator with Flow-DPO on pairs that a small CLIP prefers.

Expected on two CPU cores: about three minutes, and a gain of 0.05 to 0.07 in the true reward of the shapes world, on
combinations of attributes that training never saw.
"""

from mmalign.methods.configs import FlowDPOConfig, OwnPairs
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="image",
    model="embedded/shapes-flow",
    reward=("embedded/shapes-clip",),
    heldout_reward="shapes-truth",
    prompts="embedded/shapes-train",
    heldout_prompts="embedded/shapes-heldout",
    method=FlowDPOConfig(beta=100.0, own=OwnPairs(prompts=600, group_size=4, pairs_per_prompt=2)),
    train=TrainConfig(
        steps=400, batch_size=16, micro_batch_size=16, learning_rate=1e-3, lora_rank=16, checkpoint_every=25
    ),
    sampling=SamplingConfig(batch_size=32),
    evaluation=EvaluationConfig(n=512, every=50, glance=128),
)
