"""The measured gains of docs/results.md, by method and medium, so that no page copies a figure by hand."""

import re
from collections import defaultdict
from functools import cache

from documentation.docstrings import ROOT
from documentation.tables import table
from mmalign.training.recipe import load_recipe

RESULTS = ROOT / "docs" / "results.md"
MEDIA = ("image", "video", "scene3d", "audio", "speech")
MATRIX = re.compile(r"<!-- matrix:.*?-->(.*?)<!-- end of matrix -->", flags=re.DOTALL)


@cache
def rows() -> list[dict[str, str]]:
    """The rows of the first table of results, cells by their column."""
    found = MATRIX.search(RESULTS.read_text(encoding="utf-8"))
    assert found is not None, "docs/results.md has no matrix"
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].strip().splitlines()]
    # Two columns are called "training reward": its name, and its value before and after.
    head = [f"{name}, value" if name in lines[0][:i] else name for i, name in enumerate(lines[0])]
    return [dict(zip(head, cells, strict=True)) for cells in lines[2:]]


@cache
def model_of(recipe: str) -> str:
    """The model that a recipe aligns."""
    return load_recipe(recipe).model


def gain(row: dict[str, str]) -> str:
    """The gain of a row with its interval."""
    return next(value for name, value in row.items() if name.startswith("gain"))


def rows_of(recipe: str, *, placebo: bool = False) -> list[dict[str, str]]:
    """The rows of a recipe with its own reward, or with the placebo."""
    return [
        row for row in rows() if row["recipe"] == recipe and (row["training reward"] == "placebo") == placebo
    ]


def by_method() -> str:
    """Gains of every method in every medium, a line a seed."""
    cells: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows():
        medium, _, method = row["recipe"].partition("/")
        if row["training reward"] != "placebo":
            cells[method][medium].append(gain(row))
    return table(
        ["recipe", *MEDIA],
        [
            [f"`{method}`", *("<br>".join(cells[method][medium]) or "–" for medium in MEDIA)]
            for method in sorted(cells)
        ],
    )


def of_recipes(names: list[str]) -> str:
    """The rows of some recipes; empty where none was measured."""
    found = [row for name in names for row in (*rows_of(name), *rows_of(name, placebo=True))]
    if not found:
        return ""
    return table(
        ["recipe", "model", "training reward", "seed", "gain [95 % interval]", "n", "passes", "wall"],
        [
            [
                f"`{row['recipe']}`",
                f"`{model_of(row['recipe'])}`",
                row["training reward"],
                row["seed"],
                gain(row),
                row["n"],
                row["passes"],
                row["wall"],
            ]
            for row in found
        ],
    )
