"""Align a FLUX model with your own preference pairs on one 24 GB card; the default is the 8-billion distillation.

    mmalign align image/flow_dpo_flux --preferences pairs.parquet

The 12 billion parameters of FLUX.1-dev alone fill such a card in bf16; with more memory, ``--model
black-forest-labs/FLUX.1-dev`` is the same recipe. ``--dry-run`` says what your settings need.
"""

from pathlib import Path

from mmalign.methods.configs import FlowDPOConfig
from mmalign.training.recipe import EvaluationConfig, Recipe, SamplingConfig, TrainConfig

recipe = Recipe(
    modality="image",
    model="Freepik/flux.1-lite-8B",
    preferences=Path("pairs.parquet"),
    method=FlowDPOConfig(beta=100.0),
    train=TrainConfig(
        steps=1_000,
        batch_size=32,
        micro_batch_size=1,
        learning_rate=1e-4,
        lora_rank=16,
        precision="bf16",
        gradient_checkpointing=True,
        park_encoders=True,
        checkpoint_every=100,
    ),
    # The model card: 28 steps, guidance 3.5, which this model takes as an input.
    sampling=SamplingConfig(steps=28, guidance=3.5, height=512, width=512, batch_size=2, vae_tiling=True),
    evaluation=EvaluationConfig(n=64),
)
