"""Several processes as one: who does what, and that all of them hold the same weights. The transport is accelerate's.

Nothing but tensors travels between processes; no object is pickled. On the CPU they meet by gloo.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import PartialState
from torch import Tensor, nn

from mmalign.errors import ConfigError, MmalignError
from mmalign.launching import SEVERAL, launched
from mmalign.peers import Peers

LONGEST_TEXT = 4096
PATIENCE = timedelta(days=7)
"""How long one call between processes may wait: one of them may be asking people for labels meanwhile. That another is
gone is noticed by its beats, not by this."""


class Processes:
    """This process among ``count``; with one process everything here does nothing.

    Raises:
        ConfigError: the launcher started another number of processes than have met.
    """

    _peers: Peers | None = None
    """One for all objects of this class."""

    def __init__(self) -> None:
        several = launched()
        self._state = PartialState(cpu=several > 1 and _on_cpu(), timeout=PATIENCE)
        self.rank: int = self._state.process_index
        self.count: int = self._state.num_processes
        if self.count != several:
            raise ConfigError(
                f"the launcher started {several} processes, and this one has met {self.count - 1} others; each would "
                f"take itself for the whole run. Start them with: {SEVERAL}"
            )
        if self.count > 1 and Processes._peers is None:
            store = torch.distributed.distributed_c10d._get_default_store()
            Processes._peers = Peers(self.rank, self.count, store)

    @property
    def main(self) -> bool:
        """Whether this is the one that writes files and talks to people."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all are here.

        Raises:
            LostProcessError: one of them is gone.
        """
        with self._together():
            self._state.wait_for_everyone()

    def finish(self) -> None:
        """Until all are done; after that each may leave when it likes."""
        self.wait()
        if Processes._peers is not None:
            Processes._peers.stop()

    @contextmanager
    def _together(self) -> Iterator[None]:
        """A call between processes, which fails where one of them is gone."""
        try:
            yield
        except RuntimeError as error:
            if Processes._peers is None:
                raise
            raise Processes._peers.broken(error) from None

    def share(self, total: int) -> range:
        """The rows of this process: contiguous shares, whose sizes differ by one at most.

        >>> list(Processes().share(5))
        [0, 1, 2, 3, 4]
        """
        return self._share(total, self.rank)

    def _share(self, total: int, rank: int) -> range:
        return range(total * rank // self.count, total * (rank + 1) // self.count)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over processes, on each of them.

        Raises:
            LostProcessError: one of them is gone.
        """
        if self.count == 1:
            return values
        total = values.detach().to(self._state.device, copy=True)
        with self._together():
            torch.distributed.all_reduce(total)
        return total.to(values.device)

    def largest(self, value: int) -> int:
        """The largest value of any process, on each of them; of one process its own, without waiting for a device."""
        if self.count == 1:
            return value
        return int(self.gather(torch.tensor([value]), total=self.count).max())

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


def _on_cpu() -> bool:
    """Whether several processes meet on the CPU: so it was asked for, or there is nothing else to meet on."""
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1"):
        return True
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return device is None or device.type == "mps"
