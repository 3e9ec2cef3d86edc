import hypothesis.strategies as st
import torch
from hypothesis import given

from mmalign.methods.base import epoch_rows, step_generator

seeds = st.integers(0, 2**31 - 1)


def walk(steps: int, *, size: int, count: int, seed: int) -> list[int]:
    return [
        row for step in range(steps) for row in epoch_rows(step, size=size, count=count, seed=seed).tolist()
    ]


@given(size=st.integers(1, 9), count=st.integers(1, 12), seed=seeds)
def test_every_epoch_walks_every_row_once(size: int, count: int, seed: int) -> None:
    epochs = 3
    rows = walk(-(-epochs * count // size), size=size, count=count, seed=seed)
    for start in range(0, epochs * count, count):
        assert sorted(rows[start : start + count]) == list(range(count))


@given(size=st.integers(1, 9), count=st.integers(1, 12), seed=seeds)
def test_the_walk_is_the_same_in_steps_of_any_size(size: int, count: int, seed: int) -> None:
    whole = walk(1, size=4 * size, count=count, seed=seed)
    assert walk(4, size=size, count=count, seed=seed) == whole


def test_each_epoch_and_each_seed_has_its_own_order() -> None:
    orders = [epoch_rows(epoch, size=50, count=50, seed=seed) for epoch in (0, 1, 2) for seed in (0, 1)]
    assert len({tuple(order.tolist()) for order in orders}) == len(orders)
    assert orders[0].tolist() != list(range(50))


def test_each_step_and_each_seed_has_its_own_random_numbers() -> None:
    draws = [torch.randn(4, generator=step_generator(seed, step)) for seed in (0, 1, 2) for step in (0, 1, 2)]
    assert len({tuple(draw.tolist()) for draw in draws}) == len(draws)
    assert torch.equal(torch.randn(4, generator=step_generator(1, 2)), draws[5])
