"""Keeps what is not needed for training out of the accelerator's memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from mmalign.errors import ConfigError


def tile_vae(pipeline: Any) -> None:
    """Let the VAE work on tiles of large pictures.

    Raises:
        ConfigError: its class cannot.
    """
    vae: Any = getattr(pipeline, "vae", None)
    if not hasattr(vae, "enable_tiling"):
        what = "this pipeline has no VAE" if vae is None else f"{type(vae).__name__} has no tiles"
        raise ConfigError(f"sampling.vae_tiling would be ignored: {what}; leave it out")
    vae.enable_tiling()


@contextmanager
def parked(adapter: Any, *, park: bool = True) -> Iterator[None]:
    """Inside the block every part of the pipeline but the policy waits in main memory; afterwards it is back."""
    generator = adapter.generator
    device = generator.device
    if not park or device.type == "cpu":
        yield
        return
    others = [
        module
        for name, module in generator.pipeline.components.items()
        if isinstance(module, nn.Module) and name != generator.component
    ]
    for module in others:
        module.to("cpu")
    try:
        yield
    finally:
        for module in others:
            module.to(device)
