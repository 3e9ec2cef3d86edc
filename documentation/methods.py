"""A page for every method: what its loss is and where it is from, what it learns from, what it costs, its settings."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from documentation import measured
from documentation.docstrings import docstring, markdown, with_lists
from documentation.tables import table
from mmalign.methods import METHODS, MethodConfig
from mmalign.training.recipe import Recipe, load_recipe, recipe_files

SOURCES = {
    "demonstrations": "good samples (`--demonstrations`), or the best of its own by a reward",
    "pairs": "preference pairs (`--preferences`), or pairs of its own samples that a reward orders",
    "prompts": "prompts and a reward (`--reward`): it draws samples while it learns",
    "ratings": "scored samples (`--ratings`), or its own that a reward scores",
}


def recipes() -> dict[str, Recipe]:
    """All that ship, by name."""
    return {name: load_recipe(name) for name in recipe_files()}


def pages() -> Iterator[tuple[str, str, str]]:
    """Path, title and text of each method's page."""
    of_method: dict[str, dict[str, Recipe]] = {name: {} for name in METHODS}
    for name, recipe in recipes().items():
        of_method[recipe.method.name][name] = recipe
    for name in sorted(METHODS):
        yield f"methods/{name}.md", name, page(name, of_method[name])


def page(name: str, used_by: dict[str, Recipe]) -> str:
    """Everything of one method."""
    config, target = METHODS[name]
    parts = [
        f"# {name}",
        markdown(docstring_of(config)),
        table(["", ""], facts(config)),
        "## Loss, source and cost",
        with_lists(docstring(target)),
        "## Settings",
        table(["option", "default", "meaning"], settings(config)),
    ]
    if used_by:
        parts += [
            "## Recipes",
            table(
                ["recipe", "model", "reward", "held-out reward", "passes of one optimiser step"],
                [
                    [
                        f"`mmalign align {recipe}`",
                        f"`{values.model}`",
                        " + ".join(f"`{reward}`" for reward in values.reward),
                        f"`{values.heldout_reward}`" if values.heldout_reward else "–",
                        cost(values),
                    ]
                    for recipe, values in used_by.items()
                ],
            ),
            "A pass is one sample through the network once, counted here without guidance; `--dry-run` counts a run.",
        ]
    figures = measured.of_recipes(list(used_by))
    if figures:
        parts += [
            "## Measured",
            figures,
            "From [Results](../results.md), where machine, commit and date stand.",
        ]
    return "\n\n".join(parts) + "\n"


def facts(config: type[MethodConfig]) -> list[tuple[str, str]]:
    """What a reader has to know before the formula."""
    other = ", ".join(f"`--{name}`" for name in config.also_takes)
    return [
        ("learns from", SOURCES[config.source] + (f"; can use {other} too" if other else "")),
        (
            "generators",
            "token models"
            if config.on_tokens
            else "denoisers (diffusion or flow), unless its text narrows it",
        ),
        (
            "reward",
            "has to be differentiable" if config.needs_gradient else "any, or none where a file says all",
        ),
        ("draws while it trains", "yes" if config.draws else "no"),
    ]


def cost(recipe: Recipe) -> str:
    """Passes of one optimiser step at a recipe's own values."""
    passes = recipe.method.passes(recipe.train.batch_size, guided=False)
    return f"{passes.forward:,} forward, {passes.backward:,} forward and backward, for {recipe.train.batch_size} rows"


def settings(config: Any, *, prefix: str = "--method") -> Iterator[tuple[str, str, str]]:
    """Option, default and meaning of every field, those of nested settings after it."""
    for field in dataclasses.fields(config):
        option = f"{prefix}.{field.name.replace('_', '-')}"
        default: Any = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if dataclasses.is_dataclass(default):
            yield option, "", field_docstring(config, field.name)
            yield from settings(type(default), prefix=option)
        else:
            yield option, f"`{default}`", field_docstring(config, field.name)


def field_docstring(config: type, name: str) -> str:
    """What stands below a field, in the class that defines it last."""
    for cls in config.__mro__:
        found = docstring(f"{cls.__module__}:{cls.__name__}.{name}") if cls is not object else ""
        if found:
            return markdown(found)
    return ""


def docstring_of(cls: type) -> str:
    """Of a class that was imported."""
    return docstring(f"{cls.__module__}:{cls.__name__}")


def listing() -> str:
    """One line a method."""
    rows = []
    for name in sorted(METHODS):
        config = METHODS[name][0]
        what = docstring_of(config).partition("\n")[0]
        rows.append(
            [
                f"[`{name}`]({name}.md)",
                config.source,
                "tokens" if config.on_tokens else "denoisers",
                "yes" if config.needs_gradient else "no",
                what,
            ]
        )
    return table(["method", "learns from", "generators", "needs a gradient", "what it is"], rows)
