"""Align the embedded video generator with Flow-DPO on pairs that a small video CLIP prefers."""

from mmalign.methods.configs import FlowDPOConfig, OwnPairs
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="video",
    model="embedded/shapes-video",
    reward=("embedded/shapes-video-clip",),
    heldout_reward="shapes-video-truth",
    prompts="embedded/moving-shapes-train",
    heldout_prompts="embedded/moving-shapes-heldout",
    method=FlowDPOConfig(beta=100.0, own=OwnPairs(prompts=400, group_size=4, pairs_per_prompt=2)),
    train=TrainConfig(
        steps=250, batch_size=16, micro_batch_size=16, learning_rate=2e-3, lora_rank=16, checkpoint_every=25
    ),
    sampling=SamplingConfig(batch_size=64),
    evaluation=EvaluationConfig(n=384, every=50, glance=48),
)
