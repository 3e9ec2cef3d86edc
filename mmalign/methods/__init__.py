"""Named methods, each a source x a likelihood x a loss."""

import importlib
from typing import Any

from mmalign.methods import configs
from mmalign.methods.configs import MethodConfig

METHODS: dict[str, tuple[type[MethodConfig], str]] = {
    "d3po": (configs.D3POConfig, "mmalign.methods.d3po:D3PO"),
    "diffusion_dpo": (configs.DiffusionDPOConfig, "mmalign.methods.diffusion_dpo:DiffusionDPO"),
    "draft": (configs.DRaFTConfig, "mmalign.methods.draft:DRaFT"),
    "dro": (configs.DROConfig, "mmalign.methods.dro:DRO"),
    "flow_dpo": (configs.FlowDPOConfig, "mmalign.methods.flow_dpo:FlowDPO"),
    "flow_grpo": (configs.FlowGRPOConfig, "mmalign.methods.flow_grpo:FlowGRPO"),
    "nft": (configs.NFTConfig, "mmalign.methods.nft:NFT"),
    "refl": (configs.ReFLConfig, "mmalign.methods.refl:ReFL"),
    "reward_distillation": (
        configs.RewardDistillationConfig,
        "mmalign.methods.reward_distillation:RewardDistillation",
    ),
    "rwr": (configs.RWRConfig, "mmalign.methods.rwr:RWR"),
    "token_d3po": (configs.TokenD3POConfig, "mmalign.methods.token_d3po:TokenD3PO"),
    "token_dpo": (configs.TokenDPOConfig, "mmalign.methods.token_dpo:TokenDPO"),
    "token_dro": (configs.TokenDROConfig, "mmalign.methods.token_dro:TokenDRO"),
    "token_grpo": (configs.TokenGRPOConfig, "mmalign.methods.token_grpo:TokenGRPO"),
    "token_reward_distillation": (
        configs.TokenRewardDistillationConfig,
        "mmalign.methods.token_reward_distillation:TokenRewardDistillation",
    ),
    "token_rwr": (configs.TokenRWRConfig, "mmalign.methods.token_rwr:TokenRWR"),
}
"""By name: the settings, and where the method is, so that listing them imports no torch."""


def load_method(name: str) -> Any:
    """The class of a method of ``METHODS``."""
    module, _, target = METHODS[name][1].partition(":")
    return getattr(importlib.import_module(module), target)
