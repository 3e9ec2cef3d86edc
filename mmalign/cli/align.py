"""``mmalign align``: run a recipe; every field of it is an option."""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from mmalign.cli.options import given, parse
from mmalign.errors import ConfigError
from mmalign.locks import LockedError
from mmalign.rewards.cards import is_address, parse_weighted
from mmalign.roots import rooted
from mmalign.stopping import exit_status
from mmalign.training.base_model import read_base_model
from mmalign.training.idle import refuse_idle
from mmalign.training.preflight import preflight
from mmalign.training.recipe import Recipe, load_recipe, recipe_files
from mmalign.trust import demand

HELP = """usage: mmalign align RECIPE [--train.steps 200 ...] [--out DIR] [--root DIR] [--dry-run]
       mmalign align --resume RUN [--root DIR]

RECIPE is a name of `mmalign recipes`, a recipe.yaml, or a .py file with a recipe, which is run as Python code.
`mmalign align RECIPE --help` lists its fields, each of them an option. Media of --preferences, --ratings and
--demonstrations lie below their table's own folder, or anywhere below --root."""


def main(arguments: Sequence[str]) -> int:
    """Run ``mmalign align``; the run folder is the last line of standard output."""
    rest = list(arguments)
    if not rest or rest[0] in ("-h", "--help"):
        print(HELP)
        print("\nrecipes:", ", ".join(recipe_files()))
        return 0 if rest else 2
    rest, root = take_root(rest)
    if not rest:
        print(HELP)
        return 2
    with rooted(root):
        if rest[0].startswith("--resume"):
            return _resume(rest)
        name, *rest = rest
        dry_run = rest.count("--dry-run")
        if dry_run > 1:
            raise ConfigError("--dry-run is given twice; leave one of them out")
        recipe = preflight(parse_recipe(name, [item for item in rest if item != "--dry-run"]))
        say_licence(recipe)
        return _dry_run(recipe) if dry_run else run(recipe)


def take_root(arguments: Sequence[str]) -> tuple[list[str], Path | None]:
    """The arguments without ``--root DIR``, which belongs to a command and not to a recipe, and the folder.

    Raises:
        ConfigError: there is no such folder.
    """
    rest, given = list(arguments), None
    for place, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option == "--root":
            given = value if equals else "".join(arguments[place + 1 : place + 2])
            del rest[place : place + (1 if equals else 2)]
            break
    if given is not None and not Path(given).is_dir():
        raise ConfigError(f"--root {given} is no folder")
    return rest, None if given is None else Path(given)


def parse_recipe(name: str, options: Sequence[str]) -> Recipe:
    """A recipe by name with fields overridden by options.

    Raises:
        MmalignError: no such recipe, options that cannot work together, one that would do nothing, or a server of
            rewards that a recipe's file names and nobody trusted.
    """
    recipe = parse(Recipe, options, prog=f"mmalign align {name}", default=load_recipe(name))
    refuse_idle(recipe, given(options))
    if not name.endswith(".py"):
        refuse_addresses(recipe, name, typed=options)
    return recipe


def refuse_addresses(recipe: Recipe, file: str, *, typed: Sequence[str] = ()) -> None:
    """Let a recipe's file name no server of rewards, which is sent samples and a token, unless that is trusted.

    Args:
        recipe: what is going to be run.
        file: that it was read from.
        typed: options of the command, whose addresses are the user's own.

    Raises:
        TrustError: an address that nobody typed or trusted.
    """
    for name in filter(None, [*recipe.reward, recipe.heldout_reward]):
        if is_address(name) and name not in typed:
            demand(parse_weighted(name)[0], f"{file} names it as a reward, to which samples are sent")


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
    except KeyboardInterrupt as stopped:
        if processes.main and (folder / "recipe.yaml").exists():
            print(f"stopped; go on with: mmalign align --resume {folder}", file=sys.stderr)
        return exit_status(stopped)
    except LockedError:
        raise  # what lies in the folder is another's
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
    recipe = load_recipe(str(path / "recipe.yaml"))
    refuse_addresses(recipe, str(path / "recipe.yaml"))
    return run(preflight(recipe, folder=path), path)


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
