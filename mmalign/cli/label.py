"""``mmalign label``: a page on which people say what they prefer."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from mmalign.cli.options import parse
from mmalign.errors import ConfigError
from mmalign.ranges import COUNT, PORT, SEED, SHARE, Range, check_ranges
from mmalign.web.tokens import check_address, chosen_token

SHOWN = 5
"""Faults that are named."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelCommand:
    """Show samples of prompts in a browser, and keep what people say of them, choice by choice.

    A folder as `mmalign generate` leaves it, or one of such folders, whose samples are then compared with each other:
    `mmalign label runs/NAME/samples --out labels.jsonl`. Run it again to go on. Then `mmalign data agreement` says how
    far people agree, and `mmalign data convert --from labels` makes preferences of it.
    """

    samples: Positional[Path]
    """A folder with metadata.jsonl (file_name, prompt), or with several such folders in it."""
    out: Path
    """The jsonl file; one that is there is gone on with."""
    mode: Literal["pairs", "ranking", "rating", "binary", "marks"] = "pairs"
    """Which of two is better; an order of several; numbers for aspects, with a reason; good or bad; what is wrong in
    the picture and in the prompt."""
    group_size: Annotated[int | None, Range(least=2, most=9, why="a digit for each sample")] = None
    """Samples of a ranking; by default 4."""
    per_prompt: Annotated[int, COUNT] = 1
    """Pairs or groups of each prompt, drawn with the seed; single samples are all judged."""
    aspect: tuple[str, ...] = ()
    """Of rating: what is rated; by default the whole."""
    scale: Annotated[int, Range(least=2, most=9, why="a digit for each score")] = 5
    """Of rating: the highest number."""
    repeat: Annotated[float, SHARE] = 0.1
    """Share of the items that everybody sees a second time, later and the other way round."""
    seed: Annotated[int, SEED] = 0
    """Of groups and orders."""
    host: str = "127.0.0.1"
    """Where to listen. For other machines than this one, a token has to be shown."""
    port: Annotated[int, PORT] = 8001
    """0 for any that is free."""
    token: str | None = None
    """What browsers have to show once, in the address; MMALIGN_TOKEN keeps it out of the list of processes, and `auto`
    makes one up."""

    def __post_init__(self) -> None:
        check_ranges(self, place="--")
        check_address(self.host, self.port, self.token)
        if self.group_size is not None and self.mode != "ranking":
            raise ConfigError(f"--group-size is for --mode ranking, and this is {self.mode}")
        if self.per_prompt != 1 and self.mode not in ("pairs", "ranking"):
            raise ConfigError(f"--per-prompt is for pairs and ranking; --mode {self.mode} shows every sample")
        if self.scale != 5 and self.mode != "rating":
            raise ConfigError(f"--scale is for --mode rating, and this is {self.mode}")


def main(arguments: Sequence[str]) -> int:
    """Run ``mmalign label``.

    Raises:
        MmalignError: wrong usage, nothing to show, or nothing can listen there.
    """
    return run(parse(LabelCommand, arguments, prog="mmalign label"))


def run(command: LabelCommand) -> int:
    """Say what there is, print the address, and answer until Ctrl-C."""
    from rich.console import Console

    from mmalign.data.label_items import list_samples
    from mmalign.data.label_store import LabelSettings
    from mmalign.web.label_server import LabelServer

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    settings = LabelSettings(
        mode=command.mode,
        group_size=(command.group_size or 4) if command.mode == "ranking" else 2,
        per_prompt=command.per_prompt,
        repeat=command.repeat,
        seed=command.seed,
        aspects=command.aspect,
        scale=command.scale,
    )
    listed = list_samples(command.samples)
    token = chosen_token(command.token)
    server = LabelServer(
        command.samples,
        listed,
        command.out,
        settings,
        host=command.host,
        port=command.port,
        token=secrets.token_urlsafe(24) if token == "auto" else token,
    )
    store = server.store
    for title, faults in (
        ("samples that cannot be shown", listed.missing),
        ("lines not counted", store.faults),
    ):
        for fault in faults[:SHOWN]:
            console.print(str(fault), style="yellow", markup=False)
        if faults:
            console.print(f"{title}: {len(faults)}", markup=False)
    if store.gone:
        console.print(f"{store.gone} labels are about samples that are not here; they stay in the file")
    for name, count in store.before.items():
        console.print(f"{name}: {count} choices so far", markup=False)
    console.print(f"{len(store.items)} items for everybody; Ctrl-C ends it", markup=False)
    print(server.url, flush=True)
    try:
        server.run()
    except KeyboardInterrupt:
        pass
    finally:
        server.close()
    console.print("stopped")
    return 0
