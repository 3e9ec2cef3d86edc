"""Runs a page as a reader would: every bash and python block in order, in one shell, in a folder like a fresh clone.

``uv run mmalign`` goes through ``main`` below, which makes long commands short and changes nothing else. How:

    align      two steps of four rows, groups of two, three denoising steps, four held-out samples
    generate   two samples of a prompt at most, and of a file its first twelve prompts
    mesh       ten steps of fitting, a grid of 16
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
LENT = ("assets",)
"""What pages name as seen from a clone."""
STEPS, ROWS, SAMPLES, PROMPTS = 2, 4, 2, 12


@dataclass(frozen=True)
class Page:
    """A page whose commands are run.

    Args:
        path: below the repository.
        replaced: what a test cannot have, such as a hub id, and what stands in its place; each has to occur.
        prepare: makes what the reader is told to bring.
    """

    path: str
    replaced: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Path], None] | None = None

    def script(self) -> str:
        """All blocks as one bash script that stops at the first failure."""
        parts = ["set -euo pipefail"]
        text = (ROOT / self.path).read_text(encoding="utf-8")
        for old, new in self.replaced.items():
            assert old in text, f"{self.path} does not say {old!r}"
            text = text.replace(old, new)
        for found in BLOCK.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            parts.append(f'echo "=== {self.path}, line {line}" >&2')
            parts.append(
                found[2]
                if found[1] == "bash"
                else f"uv run python - <<'END_OF_BLOCK'\n{found[2]}END_OF_BLOCK"
            )
        return "\n".join(parts)


def run(page: Page, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a page in an empty folder that looks like a clone."""
    for name in LENT:
        (folder / name).symlink_to(ROOT / name)
    tools = folder / ".tools"
    tools.mkdir()
    uv = tools / "uv"
    uv.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tests.pages "$@"\n')
    uv.chmod(0o755)
    if page.prepare is not None:
        page.prepare(folder)
    path = os.pathsep.join([str(tools), os.environ["PATH"]])
    return subprocess.run(
        ["bash", "-c", page.script()],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def with_option(arguments: list[str], name: str, most: int) -> list[str]:
    """The same arguments with a number of at most ``most`` after an option, where it is there.

    >>> with_option(["--steps", "16"], "--steps", 2), with_option(["--n", "1"], "--n", 2)
    (['--steps', '2'], ['--n', '1'])
    """
    changed = list(arguments)
    for i, argument in enumerate(arguments[:-1]):
        if argument == name:
            changed[i + 1] = str(min(int(arguments[i + 1]), most))
    return changed


def short_align(arguments: list[str]) -> list[str]:
    """Options that make any recipe short, in the place of those of the page; a resumed run has its own."""
    if arguments[0].startswith("--") or "--help" in arguments:
        return arguments
    from mmalign.training.recipe import load_recipe

    recipe = load_recipe(arguments[0])
    options = {
        "train.steps": STEPS,
        "train.batch-size": ROWS,
        "train.micro-batch-size": ROWS,
        "train.checkpoint-every": 1,
        "evaluation.n": ROWS,
        "evaluation.every": 0,
        **({} if recipe.method.on_tokens else {"sampling.steps": STEPS}),
    }
    smaller = {
        "group_size": 2,
        "rollout_steps": 3,
        "updates_per_rollout": 1,
        "calibration": 4,
        "last_steps": 1,
    }
    options |= {f"method.{k.replace('_', '-')}": v for k, v in smaller.items() if hasattr(recipe.method, k)}
    own = getattr(recipe.method, "own", None)
    given = {"--preferences", "--ratings", "--demonstrations", "--labels"} & set(arguments)
    if own is not None and not given:
        options |= {"method.own.prompts": SAMPLES, "method.own.group-size": ROWS}
    return instead(arguments, {f"--{name}": str(value) for name, value in options.items()})


def instead(arguments: list[str], options: dict[str, str]) -> list[str]:
    """The arguments with these options, each of which is given once.

    >>> instead(["a", "--n", "4", "--out", "b"], {"--n": "1"})
    ['a', '--out', 'b', '--n', '1']
    """
    kept = [
        argument
        for i, argument in enumerate(arguments)
        if argument not in options and not (i and arguments[i - 1] in options)
    ]
    return [*kept, *(part for pair in options.items() for part in pair)]


def short_generate(arguments: list[str]) -> list[str]:
    """Fewer samples and prompts."""
    changed = with_option(arguments, "--n", SAMPLES)
    if "--prompts" in changed:
        from mmalign.data.prompts import read_prompts

        place = changed.index("--prompts") + 1
        few = Path(".tools") / "prompts.txt"
        few.write_text("\n".join(read_prompts(changed[place])[:PROMPTS]) + "\n", encoding="utf-8")
        changed[place] = str(few)
    return changed


def short_mesh(arguments: list[str]) -> list[str]:
    """A coarse fit."""
    return instead(arguments, {"--steps": "10", "--voxels": "16", "--turntable-px": "32"})


SHORTER: dict[str, Callable[[list[str]], list[str]]] = {
    "align": short_align,
    "generate": short_generate,
    "mesh": short_mesh,
}


def main(arguments: list[str]) -> int:
    """Stand in for ``uv run PROGRAM ...`` with PROGRAM mmalign or python."""
    run_word, program, *rest = arguments
    assert run_word == "run", f"uv {shlex.join(arguments)}: only `uv run` is known here"
    if program == "mmalign":
        command, *options = rest
        rest = ["-m", "mmalign", command, *SHORTER.get(command, list)(options)]
    else:
        assert program == "python", f"uv run {program} is not known here"
    return subprocess.run([sys.executable, *rest], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
