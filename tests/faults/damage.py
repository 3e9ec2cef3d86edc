"""Flips a bit or cuts the end of a file that a run keeps, goes on, and looks whether that was noticed.

``python -m tests.faults.damage --count 100 --log damage.jsonl --place FOLDER`` goes on after the rows of the log.
"""

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults import rows
from tests.faults.commands import COMMANDS
from tests.faults.contents import contents, differences
from tests.faults.events import Event
from tests.faults.place import Place
from tests.faults.sentences import one_sentence


@dataclass(frozen=True)
class Kept:
    """A kind of file, in the state of a command in which later work builds on it.

    Args:
        command: by name.
        files: a pattern; the one that is damaged is drawn from those it finds.
        until: the command was killed before its first change to a path with this in it; "" if it came to its end.
        older: an older copy is kept, so that going on has to give what it would have given, with a word.
    """

    command: str
    files: str
    until: str = ""
    older: bool = False


_FLOW, _ROUNDS = "image/flow_dpo", "image/d3po"
_THIRD, _SECOND_ROUND = "step-000003", "samples/round-2"
KEPT = {
    "recipe": Kept(_FLOW, "run/recipe.yaml", _THIRD),
    "state": Kept(_FLOW, "run/state.json", _THIRD),
    "progress": Kept(_FLOW, "run/progress.json", _THIRD),
    "pairs": Kept(_FLOW, "run/pairs.parquet", _THIRD),
    "metrics": Kept(_FLOW, "run/metrics.jsonl", _THIRD),
    "metadata": Kept(_FLOW, "run/samples/*/metadata.jsonl", _THIRD),
    "scores": Kept(_FLOW, "run/samples/*/scores.jsonl", _THIRD),
    "latents": Kept(_FLOW, "run/samples/training/latents-*.safetensors", _THIRD),
    "picture": Kept(_FLOW, "run/samples/*/0*.png", _THIRD),
    "glance": Kept(_FLOW, "run/samples/glances/*/*", _THIRD),
    "weights": Kept(_FLOW, "run/checkpoints/step-000002/policy.safetensors", _THIRD, older=True),
    "moments": Kept(_FLOW, "run/checkpoints/step-000002/optimizer.safetensors", _THIRD, older=True),
    "step": Kept(_FLOW, "run/checkpoints/step-000002/state.json", _THIRD, older=True),
    "method": Kept("audio/nft", "run/checkpoints/step-000002/method.safetensors", _THIRD, older=True),
    "lora": Kept(_FLOW, "run/lora/*"),
    "summary": Kept(_FLOW, "run/summary.json"),
    "last checkpoint": Kept(_FLOW, "run/checkpoints/*/*.safetensors"),
    "pages": Kept(_FLOW, "run/*.[hm][td]*"),
    "video": Kept("video/rwr", "run/samples/*/0*.mp4", _THIRD),
    "ratings": Kept("video/rwr", "run/ratings.parquet", _THIRD),
    "sound": Kept("audio/nft", "run/samples/*/0*.wav", _THIRD),
    "views": Kept("scene3d/dro", "run/samples/*/0*.png", _THIRD),
    "demonstrations": Kept("scene3d/dro", "run/demonstrations.parquet", _THIRD),
    "speech": Kept("speech/grpo", "run/samples/*/0*.wav", "step-000004"),
    "tokens": Kept("speech/grpo", "run/samples/*/metadata.jsonl", "step-000004"),
    "labels": Kept(_ROUNDS, "run/labels/*.jsonl", _SECOND_ROUND),
    "rounds": Kept(_ROUNDS, "run/rounds.jsonl", _SECOND_ROUND),
    "trajectory": Kept(_ROUNDS, "run/samples/round-1/trajectory-*.safetensors", "rounds.jsonl"),
    "partial scores": Kept("score", "scores.jsonl.partial", "scores.jsonl"),
    "features": Kept("reward train", "reward/features/*", "card.yaml"),
}
"""Every kind of file, by name."""


@dataclass(frozen=True)
class Damage:
    """One damaged file, and what came of it.

    Args:
        kind: of ``KEPT``.
        file: that was damaged.
        how: it was.
        result: "equal ..." if it was noticed or does not matter, or what is wrong.
        seconds: it took.
    """

    kind: str
    file: str
    how: str
    result: str
    seconds: float


def damage_once(place: Place, number: int) -> Damage:
    """Damage a file of the kind whose turn it is, go on, and compare."""
    name, chance, begun = list(KEPT)[number % len(KEPT)], random.Random(number), time.monotonic()
    kept = KEPT[name]
    command, wanted = COMMANDS[kept.command], place.wanted(kept.command)
    _restore(place, kept)
    files = sorted(path for path in place.work.glob(kept.files) if path.is_file())
    assert files, f"{name}: no {kept.files} where the command was stopped"
    file = chance.choice(files)
    how = _spoil(file, chance)
    ended = place.run(command.again(place.work))
    relative = file.relative_to(place.work).as_posix()
    if ended.status == 0:
        found = differences(contents(place.work), wanted)
        result = "in silence: " + "; ".join(found) if found else f"{rows.GOOD}: as if whole"
        if not found and kept.older and file.parent.name not in ended.err:
            result = f"no word about {file.parent.name}: {ended.words}"
    else:
        said = one_sentence(ended)
        result = (
            f"{rows.GOOD}: refused: {said}" if said and not kept.older else f"{ended.status}: {ended.words}"
        )
    return Damage(name, relative, how, result, round(time.monotonic() - begun, 1))


def _spoil(file: Path, chance: random.Random) -> str:
    """Flip a bit, or cut the file somewhere; what was done."""
    data = bytearray(file.read_bytes())
    if data and chance.random() < 0.5:
        at = chance.randrange(8 * len(data))
        data[at // 8] ^= 1 << at % 8
        how = f"bit {at} flipped"
    else:
        length = chance.randrange(len(data)) if data else 0
        how = f"cut at {length} of {len(data)}"
        del data[length:]
    file.write_bytes(data)
    return how


def _restore(place: Place, kept: Kept) -> None:
    """The working directory as the command left it at its stop; made once."""
    stop = kept.until.replace("/", "-") or "end"
    copy = place.folder / "stopped" / f"{kept.command}-{stop}".replace("/", "-").replace(" ", "-")
    place.wanted(kept.command)
    if not copy.is_dir():
        command = COMMANDS[kept.command]
        place.begin(command)
        ended = place.run(command.arguments, on=killing_before(kept.until) if kept.until else None)
        assert ended.killed == bool(kept.until), (
            f"{kept.command} was not stopped at {kept.until}: {ended.words}"
        )
        shutil.copytree(place.work, copy)
    shutil.rmtree(place.work)
    shutil.copytree(copy, place.work)


def killing_before(part: str) -> Callable[[Event], None]:
    """Ends the process before its first change to a path with this in it."""

    def kill(event: Event) -> None:
        if part in event.path and not event.path.endswith(".partial"):
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


if __name__ == "__main__":
    sys.exit(rows.main(sys.argv[1:], damage_once, list(KEPT), about=__doc__ or ""))
