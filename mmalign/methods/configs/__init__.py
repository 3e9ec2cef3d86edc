"""The typed settings of each method: values with their sources, importing no torch so that help is quick."""

from mmalign.methods.configs.base import (
    MethodConfig,
    OwnDemonstrations,
    OwnPairs,
    OwnSamples,
    Source,
    StepPasses,
)
from mmalign.methods.configs.gradient import DRaFTConfig, ReFLConfig, RewardDistillationConfig
from mmalign.methods.configs.offline import DiffusionDPOConfig, FlowDPOConfig, RWRConfig
from mmalign.methods.configs.online import D3POConfig, DROConfig, FlowGRPOConfig, NFTConfig
from mmalign.methods.configs.tokens import (
    TokenD3POConfig,
    TokenDPOConfig,
    TokenDROConfig,
    TokenGRPOConfig,
    TokenRewardDistillationConfig,
    TokenRWRConfig,
)

__all__ = [
    "D3POConfig",
    "DROConfig",
    "DRaFTConfig",
    "DiffusionDPOConfig",
    "FlowDPOConfig",
    "FlowGRPOConfig",
    "MethodConfig",
    "NFTConfig",
    "OwnDemonstrations",
    "OwnPairs",
    "OwnSamples",
    "RWRConfig",
    "ReFLConfig",
    "RewardDistillationConfig",
    "Source",
    "StepPasses",
    "TokenD3POConfig",
    "TokenDPOConfig",
    "TokenDROConfig",
    "TokenGRPOConfig",
    "TokenRWRConfig",
    "TokenRewardDistillationConfig",
]
