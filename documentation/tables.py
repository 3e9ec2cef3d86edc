"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""Rows of cells under their heads; a bar or a line break inside a cell stays inside it.

    >>> print(table(["a", "b"], [["1 | 2", "3"]]))
    | a | b |
    | --- | --- |
    | 1 \| 2 | 3 |
    """
    lines = [
        list(head),
        ["---"] * len(head),
        *([" ".join(c.split()).replace("|", "\\|") for c in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
