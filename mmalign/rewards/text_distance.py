"""How far one text, or list of words, is from another."""

from collections.abc import Sequence


def edit_distance(first: Sequence[str], second: Sequence[str]) -> int:
    """The fewest insertions, deletions and replacements that turn one sequence into the other.

    >>> edit_distance("kitten", "sitting"), edit_distance("a b c".split(), "a x c d".split())
    (3, 2)

    Source: Levenshtein 1966, by the recursion of Wagner and Fischer 1974, one row at a time.
    """
    row = list(range(len(second) + 1))
    for i, left in enumerate(first, start=1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(second, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
    return row[-1]
