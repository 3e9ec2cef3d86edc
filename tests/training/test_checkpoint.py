"""A checkpoint of which a bit is another is passed over, with a word; the newest is that of most steps."""

import random
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from mmalign.errors import ConfigError, NonFiniteError
from mmalign.training.checkpoint import (
    SUMS,
    checkpoints,
    damage,
    last_step,
    load_checkpoint,
    moments_of,
    save_checkpoint,
)
from mmalign.training.guards import check_weights

D = 5


def policy(width: int = D) -> tuple[dict[str, nn.Parameter], torch.optim.Optimizer]:
    """Parameters and their optimiser after two steps."""
    random = torch.Generator().manual_seed(0)
    parameters = {
        name: nn.Parameter(torch.randn(width, 2, generator=random)) for name in ("a.weight", "b.weight")
    }
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.1)
    for _ in range(2):
        sum((p**2).sum() for p in parameters.values()).backward()  # type: ignore[union-attr]
        optimizer.step()
    return parameters, optimizer


def saved(folder: Path, *steps: int) -> dict[str, nn.Parameter]:
    parameters, optimizer = policy()
    for step in steps:
        with torch.no_grad():
            parameters["a.weight"].fill_(step)
        save_checkpoint(folder, step, parameters, optimizer, {"old/a": torch.full((3,), float(step))})
    return parameters


def loaded(folder: Path) -> tuple[int, float, float]:
    """The step, and a number of the weights and of the method's state."""
    parameters, optimizer = policy()
    step, state = load_checkpoint(folder, parameters, optimizer)
    return step, float(parameters["a.weight"].detach()[0, 0]), float(state["old/a"][0]) if state else 0.0


def test_all_of_it_comes_back(tmp_path: Path) -> None:
    parameters = saved(tmp_path, 3)
    before = {name: p.detach().clone() for name, p in parameters.items()}
    again, optimizer = policy()
    optimizer.state.clear()
    assert load_checkpoint(tmp_path, again, optimizer)[0] == 3
    assert all(torch.equal(again[name], before[name]) for name in before)
    _, first = policy()
    for (name, mine), theirs in zip(
        moments_of(again, optimizer).items(), moments_of(policy()[0], first).values() or [], strict=False
    ):
        assert mine.shape == theirs.shape, name
    assert set(moments_of(again, optimizer)) == {
        f"{name}/{part}" for name in before for part in ("step", "exp_avg", "exp_avg_sq")
    }


def test_a_million_comes_after_999999(tmp_path: Path) -> None:
    saved(tmp_path, 999_998, 999_999, 1_000_000)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-999999", "step-1000000"]
    assert loaded(tmp_path)[0] == 1_000_000


def test_every_flipped_bit_is_noticed_and_the_one_before_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path, 10, 20)
    draw = random.Random(0)
    files = sorted((tmp_path / "step-000020").iterdir())
    assert len(files) == 5
    flips = 0
    for path in files:
        whole = path.read_bytes()
        for _ in range(12):
            at, bit = draw.randrange(len(whole)), draw.randrange(8)
            path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :])
            assert damage(tmp_path / "step-000020") is not None, f"{path.name}, byte {at}, bit {bit}"
            assert loaded(tmp_path) == (10, 10.0, 10.0)
            flips += 1
        path.write_bytes(whole)
    assert flips == 60
    said = " ".join(capsys.readouterr().err.split())
    assert "step-000020: damaged (policy.safetensors is not as it was written), passed over" in said
    assert loaded(tmp_path) == (20, 20.0, 20.0)


@pytest.mark.parametrize("name", ["policy.safetensors", "optimizer.safetensors", "state.json", SUMS])
def test_a_cut_or_missing_file_falls_back(name: str, tmp_path: Path) -> None:
    saved(tmp_path, 10, 20)
    path = tmp_path / "step-000020" / name
    path.write_bytes(path.read_bytes()[:-7])
    assert loaded(tmp_path)[0] == last_step(tmp_path) == 10
    if name != SUMS:
        path.unlink()
        assert loaded(tmp_path)[0] == 10


def test_a_damaged_one_gives_way_to_its_successor(tmp_path: Path) -> None:
    saved(tmp_path, 10, 20)
    (tmp_path / "step-000020" / "state.json").write_text("{}")
    saved(tmp_path, 15)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000010", "step-000015"]


def test_where_all_are_damaged_it_begins_anew(tmp_path: Path) -> None:
    saved(tmp_path, 10, 20)
    for path in checkpoints(tmp_path):
        (path / "policy.safetensors").write_bytes(b"")
    assert loaded(tmp_path)[0] == 0


def test_one_without_sums_is_taken_with_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path, 10)
    (tmp_path / "step-000010" / SUMS).unlink()
    assert loaded(tmp_path)[0] == 10
    assert "taken unchecked" in capsys.readouterr().err


def test_another_width_is_refused_and_not_broadcast(tmp_path: Path) -> None:
    saved(tmp_path, 10)
    parameters, optimizer = policy(width=1)
    with pytest.raises(ConfigError, match="holds another policy"):
        load_checkpoint(tmp_path, parameters, optimizer)


@pytest.mark.parametrize("kind", ["the weights", "the optimiser's moments", "the method's state"])
def test_what_a_step_left_not_finite_is_not_written(kind: str, tmp_path: Path) -> None:
    parameters, optimizer = policy()
    method = {"old/a": torch.ones(3)}
    check_weights(parameters, moments_of(parameters, optimizer), method, step=7)
    bad = {
        "the weights": parameters["b.weight"].data,
        "the optimiser's moments": optimizer.state[parameters["b.weight"]]["exp_avg_sq"],
        "the method's state": method["old/a"],
    }[kind]
    bad.view(-1)[1] = float("inf")
    with pytest.raises(
        NonFiniteError, match=f"step 7.*{kind} are not finite, first in .*; nothing of this step"
    ):
        check_weights(parameters, moments_of(parameters, optimizer), method, step=7)
    with pytest.raises(NonFiniteError):
        save_checkpoint(tmp_path, 7, parameters, optimizer, method)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_was_begun_is_none(tmp_path: Path) -> None:
    saved(tmp_path, 10)
    shutil.copytree(tmp_path / "step-000010", tmp_path / ".mmalign-00000000-1-00000000-step-000020")
    assert loaded(tmp_path)[0] == 10
