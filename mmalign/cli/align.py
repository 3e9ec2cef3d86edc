"""``mmalign align``: run a recipe; every field of it is an option."""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from mmalign.cli.options import given, parse
from mmalign.errors import ConfigError
from mmalign.training.base_model import read_base_model
from mmalign.training.idle import refuse_idle
from mmalign.training.preflight import preflight
from mmalign.training.recipe import Recipe, load_recipe, recipe_files

HELP = """usage: mmalign align RECIPE [--train.steps 200 ...] [--out DIR] [--dry-run]
       mmalign align --resume RUN

RECIPE is a name of `mmalign recipes`, a .py file with a recipe, or a recipe.yaml.
`mmalign align RECIPE --help` lists its fields, each of them an option."""


def main(arguments: Sequence[str]) -> int:
    """Run ``mmalign align``; the run folder is the last line of standard output."""
    rest = list(arguments)
    if not rest or rest[0] in ("-h", "--help"):
        print(HELP)
        print("\nrecipes:", ", ".join(recipe_files()))
        return 0 if rest else 2
    if rest[0].startswith("--resume"):
        return _resume(rest)
    name, *rest = rest
    dry_run = rest.count("--dry-run")
    if dry_run > 1:
        raise ConfigError("--dry-run is given twice; leave one of them out")
    recipe = preflight(parse_recipe(name, [item for item in rest if item != "--dry-run"]))
    say_licence(recipe)
    return _dry_run(recipe) if dry_run else run(recipe)


def parse_recipe(name: str, options: Sequence[str]) -> Recipe:
    """A recipe by name with fields overridden by options.

    Raises:
        MmalignError: no such recipe, options that cannot work together, or one that would do nothing.
    """
    recipe = parse(Recipe, options, prog=f"mmalign align {name}", default=load_recipe(name))
    refuse_idle(recipe, given(options))
    return recipe


def say_licence(recipe: Recipe) -> None:
    """What the base's licence is; what is trained on it goes by it too."""
    model = read_base_model(recipe.model)
    if model.licence != "Apache-2.0":
        print(
            f"licence of {recipe.model}: {model.licence or 'its files name none; look it up'}",
            file=sys.stderr,
        )


def run(recipe: Recipe, folder: Path | None = None) -> int:
    """Run a recipe in a new folder, or go on in ``folder``."""
    from mmalign.training.folder import new_run_folder

    resumed = folder is not None
    _quiet()
    from mmalign.processes import Processes
    from mmalign.training.align import align
    from mmalign.training.table import print_result

    processes = Processes()
    if folder is None:
        new = new_run_folder(recipe.out, recipe.title) if processes.main else ""
        folder = Path(processes.tell(str(new)))
    try:
        align(recipe, folder)
    except KeyboardInterrupt:
        print(f"stopped; go on with: mmalign align --resume {folder}", file=sys.stderr)
        return 130
    except Exception:
        if not resumed and processes.main and folder.is_dir() and not any(folder.rglob("metadata.jsonl")):
            import shutil

            shutil.rmtree(folder)  # nothing was made yet: a mistake leaves nothing behind
        raise
    if processes.main:
        print_result(folder)
        print(folder)
    return 0


def _resume(arguments: list[str]) -> int:
    first, *rest = arguments
    folder = first.partition("=")[2] or (rest.pop(0) if rest else "")
    if not folder or rest:
        raise ConfigError(
            "expected: mmalign align --resume RUN, and nothing else; a run keeps its own recipe"
        )
    path = Path(folder)
    if not (path / "recipe.yaml").is_file():
        raise ConfigError(f"{folder}: no recipe.yaml here, so no run to go on with")
    return run(preflight(load_recipe(str(path / "recipe.yaml")), folder=path), path)


def _dry_run(recipe: Recipe) -> int:
    import yaml

    _quiet()
    from mmalign.training.estimate import estimate
    from mmalign.training.recipe import to_values

    print(yaml.safe_dump({**to_values(recipe), "estimate": estimate(recipe)}, sort_keys=False), end="")
    return 0


def _quiet() -> None:
    """Leave out the chatter of libraries at load; our own warnings stay."""
    import logging
    import os

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from diffusers.utils.logging import disable_progress_bar

    disable_progress_bar()
    logging.getLogger("torch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(diffusers|transformers|torch|peft|open_clip)\.")
