"""``mmalign export``: a run's weights for others."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from mmalign.cli.options import parse
from mmalign.ranges import NOT_NEGATIVE, check_ranges


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportCommand:
    """Write a run's weights with a model card, load them back in a process without mmalign, and compare outputs.

    It ends well only where they are equal to 1/255.
    """

    run: Positional[Path]
    """A run folder."""
    to: Literal["diffusers", "peft", "merged"]
    """A LoRA for pipeline.load_lora_weights, a LoRA for PeftModel.from_pretrained, or the whole model."""
    out: Path | None = None
    """A new folder; by default RUN/export-<to>."""
    samples: Annotated[int, NOT_NEGATIVE] = 4
    """Held-out samples that are drawn again on both sides; 0 compares nothing."""

    def __post_init__(self) -> None:
        check_ranges(self, place="--")


def main(arguments: Sequence[str]) -> int:
    """Run ``mmalign export``; the folder is the last line of standard output."""
    command = parse(ExportCommand, arguments, prog="mmalign export")
    from mmalign.cli.align import _quiet

    _quiet()
    from mmalign.training.exporting import export

    made = export(
        command.run, command.to, command.out or command.run / f"export-{command.to}", samples=command.samples
    )
    if made.samples:
        print(
            f"{made.samples} samples drawn again without mmalign: largest difference {255 * made.largest:.3f}/255",
            file=sys.stderr,
        )
    print(made.folder)
    return 0
