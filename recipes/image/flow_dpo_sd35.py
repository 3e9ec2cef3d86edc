"""Align Stable Diffusion 3.5 Medium, or another SD3 model, with your own preference pairs on one 24 GB card.

    mmalign align image/flow_dpo_sd35 --preferences pairs.parquet

``--dry-run`` says how much memory and how many denoiser passes your settings need. Pairs are encoded once, before
training; between them and the samples at the end, text encoders and VAE wait in main memory.
"""

from pathlib import Path

from mmalign.methods.configs import FlowDPOConfig
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="image",
    model="stabilityai/stable-diffusion-3.5-medium",
    preferences=Path("pairs.parquet"),
    # Flow-GRPO's repository, config/dpo.py: beta 100 and, with an average of the weights, a rate of 3e-4.
    method=FlowDPOConfig(beta=100.0),
    train=TrainConfig(
        steps=1_000,
        batch_size=32,
        micro_batch_size=2,
        learning_rate=1e-4,
        lora_rank=32,
        precision="bf16",
        gradient_checkpointing=True,
        park_encoders=True,
        checkpoint_every=100,
    ),
    # The model card: 40 steps, guidance 4.5.
    sampling=SamplingConfig(steps=40, guidance=4.5, height=512, width=512, batch_size=4, vae_tiling=True),
    evaluation=EvaluationConfig(n=64),
)
