"""Named methods, each a source x a likelihood x a loss."""

from mmalign.methods.configs import FlowDPOConfig, MethodConfig

METHODS: dict[str, tuple[type[MethodConfig], str]] = {
    "flow_dpo": (FlowDPOConfig, "mmalign.methods.flow_dpo:FlowDPO"),
}
"""By name: the settings, and where the method is, so that listing them imports no torch."""
