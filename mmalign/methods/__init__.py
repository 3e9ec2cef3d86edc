"""Named methods, each a source x a likelihood x a loss."""

import importlib
from typing import Any

from mmalign.methods.configs import FlowDPOConfig, MethodConfig

METHODS: dict[str, tuple[type[MethodConfig], str]] = {
    "flow_dpo": (FlowDPOConfig, "mmalign.methods.flow_dpo:FlowDPO"),
}
"""By name: the settings, and where the method is, so that listing them imports no torch."""


def load_method(name: str) -> Any:
    """The class of a method of ``METHODS``."""
    module, _, target = METHODS[name][1].partition(":")
    return getattr(importlib.import_module(module), target)
