"""Edit distance: by hand, and as the shortest path that the definition names."""

from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from mmalign.rewards.text_distance import edit_distance

texts = st.text("abc", max_size=6)


@given(first=texts, second=texts)
def test_distance_is_the_best_of_its_three_moves(first: str, second: str) -> None:
    @cache
    def plain(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        replaced = plain(i - 1, j - 1) + (first[i - 1] != second[j - 1])
        return min(plain(i - 1, j) + 1, plain(i, j - 1) + 1, replaced)

    assert edit_distance(first, second) == plain(len(first), len(second))


@given(first=texts, second=texts, third=texts)
def test_it_is_a_distance(first: str, second: str, third: str) -> None:
    assert (edit_distance(first, second) == 0) == (first == second)
    assert edit_distance(first, second) == edit_distance(second, first)
    assert edit_distance(first, third) <= edit_distance(first, second) + edit_distance(second, third)
