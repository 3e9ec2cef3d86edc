"""``mmalign merge``: several runs' LoRAs as one."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from mmalign.cli.options import parse
from mmalign.errors import ConfigError
from mmalign.ranges import FINITE, Range, check_ranges
from mmalign.training.places import check_new_folder


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeCommand:
    """Merge the LoRAs of runs of one model, and write a LoRA that plain diffusers loads; its rank is their sum."""

    runs: Positional[tuple[Path, ...]]
    """Runs, or folders with pytorch_lora_weights.safetensors."""
    out: Path
    """A new folder."""
    method: Literal["slerp", "linear"] = "slerp"
    """Spherical interpolation layer by layer (WARP), or a weighted sum."""
    weights: Annotated[tuple[float, ...], FINITE] = ()
    """Of a linear merge; by default all alike."""
    share: Annotated[float, Range(above=0, most=1)] = 1.0
    """How much of the merged change is kept: WARP steps back towards the start with 0.3 to 0.8."""

    def __post_init__(self) -> None:
        check_ranges(self, place="--")
        if not self.runs:
            raise ConfigError("nothing to merge: name runs or lora folders")
        if self.weights and (self.method != "linear" or len(self.weights) != len(self.runs)):
            raise ConfigError("--weights belongs to --method linear, one for each run")
        if self.method == "slerp" and len(self.runs) < 2 and self.share == 1:
            raise ConfigError("one run alone is merged with nothing; give two, or --share below 1")


def main(arguments: Sequence[str]) -> int:
    """Run ``mmalign merge``; the folder is the last line of standard output."""
    command = parse(MergeCommand, arguments, prog="mmalign merge")
    check_new_folder(command.out)
    from mmalign.generators import merging
    from mmalign.generators.lora_files import read_lora, write_lora

    found = [read_lora(run / "lora" if (run / "lora").is_dir() else run) for run in command.runs]
    prefixes = {prefix for prefix, _ in found}
    if len(prefixes) > 1:
        raise ConfigError(f"LoRAs of different parts of a pipeline: {', '.join(sorted(prefixes))}")
    updates = [update for _, update in found]
    if len(updates) == 1:
        merged = dict(updates[0])
    elif command.method == "slerp":
        merged = merging.slerp(updates)
    else:
        merged = merging.linear(updates, command.weights or [1 / len(updates)] * len(updates))
    write_lora(command.out, prefixes.pop(), merging.towards_start(merged, share=command.share))
    print(command.out, file=sys.stdout)
    return 0
