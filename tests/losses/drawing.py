"""What the tests of losses draw from, and how exactly an identity in float64 has to hold."""

from typing import Any

import torch
from torch import Tensor

EXACT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers in float64, the same every time."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
