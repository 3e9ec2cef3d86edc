"""``mmalign recipes``: what can be run, on which model, with which reward."""

from collections.abc import Sequence
from dataclasses import dataclass

from mmalign.cli.options import parse
from mmalign.data.writers import format_rows
from mmalign.training.recipe import load_recipe, recipe_files


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipesCommand:
    """List the recipes that ship; run one with `mmalign align NAME`."""


def main(arguments: Sequence[str]) -> int:
    """Run ``mmalign recipes``."""
    parse(RecipesCommand, arguments, prog="mmalign recipes")
    rows = []
    for name in recipe_files():
        recipe = load_recipe(name)
        rows.append(
            {
                "recipe": name,
                "modality": recipe.modality,
                "method": recipe.method.name,
                "model": recipe.model,
                "reward": " + ".join(recipe.reward) or None,
                "held-out reward": recipe.heldout_reward,
            }
        )
    print(format_rows(rows, "table"), end="")
    return 0
