"""The commands that are disturbed: small, a few seconds each, and how each is gone on with after a stop."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DRAWN, SCORES, PAIRS, RUN = "../inputs/drawn", "../inputs/scores.jsonl", "../inputs/pairs.parquet", "run"
"""What some commands read; ``RUN`` lies in the working directory, since ``export`` writes into it too."""


@dataclass(frozen=True)
class Command:
    """One command.

    Args:
        name: of the table.
        arguments: with which it begins, in the working directory.
        reads_run: whether a finished run has to lie at ``RUN`` before.
        resume: what is said once ``begun`` is there; None to say the same again.
        begun: the file that makes ``resume`` the documented way to go on.
    """

    name: str
    arguments: tuple[str, ...]
    reads_run: bool = False
    resume: tuple[str, ...] | None = None
    begun: str = ""

    def again(self, here: Path) -> tuple[str, ...]:
        """How to go on, as documented."""
        if self.resume is not None and (here / self.begun).is_file():
            return self.resume
        return self.arguments


_TRAIN = (
    "--train.steps 3 --train.batch-size 2 --train.micro-batch-size 2 --train.checkpoint-every 1 --train.lora-rank 2 "
    "--evaluation.n 4 --evaluation.every 2 --evaluation.glance 2 --sampling.batch-size 2"
)
_OWN = "--method.own.prompts 2 --method.own.group-size 2"
_LATENT = "--sampling.steps 2"


def _align(recipe: str, *options: str) -> Command:
    words = " ".join((_TRAIN, *options)).split()
    values = dict(zip(words[::2], words[1::2], strict=True))  # what is said later takes the place of _TRAIN's
    return Command(
        recipe,
        ("align", recipe, "--out", RUN, *(word for item in values.items() for word in item)),
        resume=("align", "--resume", RUN),
        begun=f"{RUN}/recipe.yaml",
    )


def _say(name: str, line: str, **options: Any) -> Command:
    return Command(name, tuple(line.split()), **options)


ALIGN = (
    _align("image/flow_dpo", _OWN, "--method.own.pairs-per-prompt 1", _LATENT),
    _align("image/diffusion_dpo", _OWN, "--method.own.pairs-per-prompt 1", _LATENT),
    _align("video/rwr", _OWN, _LATENT),
    _align("scene3d/dro", _OWN, _LATENT, "--method.rollout-steps 2"),
    _align("audio/nft", _LATENT, "--method.group-size 2 --method.rollout-steps 2"),
    # Steps in pairs: two updates to a rollout.
    _align("speech/grpo", "--method.group-size 2 --sampling.frames 20 --train.steps 4"),
)
"""Six families."""
ROUNDS = _align(
    "image/d3po",
    _LATENT,
    "--labels simulated --rounds 2 --pairs-per-round 2 --method.rollout-steps 3 --train.steps 2",
)
_SCORE = (
    f"score {DRAWN} --reward embedded/shapes-clip --reward shapes-truth --out scores.jsonl --batch-size 4"
)
_GENERATE = (
    "generate embedded/shapes-flow --prompts ../inputs/prompts.txt --steps 2 --batch-size 4 --max-sequence-length 1 "
    "--out drawn"
)
OTHERS = (
    _say("reward train", f"reward train --data {PAIRS} --out reward --epochs 3 --members 2 --heldout 0.4"),
    _say("pairs", f"pairs {SCORES} --root ../inputs --out pairs.parquet"),
    _say("export", f"export {RUN} --to merged --out exported --samples 0", reads_run=True),
    _say("generate", _GENERATE, resume=(*_GENERATE.split(), "--resume"), begun="drawn/.asked.json"),
    _say("score", _SCORE, resume=(*_SCORE.split(), "--resume"), begun="scores.jsonl.partial"),
)
COMMANDS = {command.name: command for command in (*ALIGN, ROUNDS, *OTHERS)}
"""By name, in the order in which kills go round."""


def inputs(folder: Path) -> Sequence[tuple[str, ...]]:
    """Commands that make what others read, run in ``folder`` in this order; its prompts are written here."""
    from mmalign.data.prompts import read_prompts

    (folder / "prompts.txt").write_text("\n".join(read_prompts("embedded/shapes-train")[:12]) + "\n")
    draw = "generate embedded/shapes-flow --prompts prompts.txt --n 2 --steps 2 --max-sequence-length 1 --out drawn"
    score = "score drawn --reward embedded/shapes-clip --out scores.jsonl"
    return [tuple(line.split()) for line in (draw, score, "pairs scores.jsonl --out pairs.parquet")]
