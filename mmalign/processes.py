"""Several processes as one: who does what, and that all of them hold the same weights. The transport is accelerate's.

Nothing but tensors travels between processes; no object is pickled.
"""

from collections.abc import Mapping

import torch
from accelerate import PartialState
from torch import Tensor, nn

from mmalign.errors import MmalignError

LONGEST_TEXT = 4096


class Processes:
    """This process among ``count``; with one process everything here does nothing."""

    def __init__(self) -> None:
        self._state = PartialState()
        self.rank: int = self._state.process_index
        self.count: int = self._state.num_processes

    @property
    def main(self) -> bool:
        """Whether this is the one that writes files and talks to people."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all are here."""
        self._state.wait_for_everyone()

    def share(self, total: int) -> range:
        """The rows of this process: contiguous shares, whose sizes differ by one at most.

        >>> list(Processes().share(5))
        [0, 1, 2, 3, 4]
        """
        return self._share(total, self.rank)

    def _share(self, total: int, rank: int) -> range:
        return range(total * rank // self.count, total * (rank + 1) // self.count)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over processes, on each of them."""
        if self.count == 1:
            return values
        total = values.detach().to(self._state.device, copy=True)
        torch.distributed.all_reduce(total)
        return total.to(values.device)

    def gather(self, values: Tensor, *, total: int) -> Tensor:
        """Rows of all processes in order, on each of them, from the rows that ``share(total)`` gave this one."""
        if self.count == 1:
            return values
        whole = torch.zeros(total, *values.shape[1:], dtype=values.dtype, device=values.device)
        mine = self.share(total)
        whole[mine.start : mine.stop] = values
        return self.sum(whole)

    def tell(self, text: str) -> str:
        """The text of the main process, on each of them."""
        if self.count == 1:
            return text
        raw = torch.zeros(LONGEST_TEXT, dtype=torch.int32)
        if self.main:
            data = text.encode()
            raw[: len(data)] = torch.tensor(list(data), dtype=torch.int32)
        return bytes(self.sum(raw).tolist()).rstrip(b"\0").decode()

    def sum_gradients(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Add up the gradients of all processes, so that each holds those of the global batch."""
        if self.count == 1:
            return
        parts = [
            (torch.zeros_like(p) if p.grad is None else p.grad).detach().float().flatten()
            for p in parameters.values()
        ]
        flat = self.sum(torch.cat(parts))
        for parameter, part in zip(parameters.values(), flat.split([p.numel() for p in parts]), strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)

    def check_same(self, parameters: Mapping[str, nn.Parameter], *, step: int) -> None:
        """Compare a checksum of the weights across processes.

        Raises:
            MmalignError: they have drifted apart.
        """
        if self.count == 1:
            return
        mine = torch.stack([p.detach().double().sum() for p in parameters.values()]).sum().reshape(1).cpu()
        checksums = self.gather(mine, total=self.count)
        if not (checksums == checksums[0]).all():
            raise MmalignError(
                f"step {step}: the processes hold different weights (checksums {checksums.tolist()}); the run cannot "
                "be trusted. Go on from the last checkpoint with --resume, and report it if it happens again"
            )
