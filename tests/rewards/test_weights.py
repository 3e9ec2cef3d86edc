"""Where weights are found, how they are checked, and what is said where they are not."""

import hashlib
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mmalign.errors import ConfigError
from mmalign.rewards.cards import WeightFiles, cards, find_card, load_reward
from mmalign.rewards.weights import checkpoint, fill, find, obtain, read_state, weights_home
from tests.rewards.factories import FACTORIES

CARD = replace(find_card("hps-v2.1"), files={"a.pt": None})


@pytest.fixture(autouse=True)
def nothing_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No weights on this machine, whatever its owner has."""
    from huggingface_hub import constants

    monkeypatch.setenv("MMALIGN_WEIGHTS", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def put(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", FACTORIES)
def test_a_card_without_weights_says_so_and_how_to_get_them(name: str) -> None:
    assert find_card(name).readiness() == "needs weights"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ConfigError) as caught:
            load_reward(name)
    message = str(caught.value)
    assert "\n" not in message
    assert f"reward '{name}': its weights are not on this machine" in message
    assert f"load_reward('{name}', weights='FOLDER')" in message
    assert ("`hf download" in message) or ("`curl -L" in message)
    assert all(
        file in message
        for part in ("", *find_card(name).parts)
        for file in find_card(name).weight_files(part).files
    )


def test_weights_are_found_by_hand_in_the_hubs_cache_and_by_path(nothing_here: Path) -> None:
    assert find(CARD) is None
    revision = nothing_here / "hub" / "models--xswu--HPSv2"
    put(revision / "refs" / "main", b"abc")
    put(revision / "snapshots" / "abc" / "a.pt")
    assert find(CARD) == revision / "snapshots" / "abc"
    put(weights_home() / CARD.name / "a.pt")
    assert find(CARD) == weights_home() / CARD.name
    file = put(nothing_here / "mine" / "other-name.pt")
    assert find(replace(CARD, weights=str(file))) == file
    assert checkpoint(replace(CARD, weights=str(file)), "a.pt") == file
    assert find(replace(CARD, weights=str(file.parent))) is None  # no a.pt in it, and no other place is meant


def test_a_part_lies_in_a_folder_of_its_name_or_among_the_weights(nothing_here: Path) -> None:
    card = replace(CARD, parts={"words": WeightFiles(source="c/d", files={"t.json": None})})
    put(weights_home() / CARD.name / "a.pt")
    assert card.readiness() == "needs weights"
    folder = put(nothing_here / "mine" / "t.json").parent
    put(folder / "a.pt")
    mine = replace(card, weights=str(folder))
    assert (find(mine), find(mine, "words"), mine.readiness()) == (folder, folder, "ready")
    put(folder / "words" / "t.json")
    assert find(mine, "words") == folder / "words"


def test_a_file_that_the_card_does_not_mean_is_refused(nothing_here: Path) -> None:
    digest = hashlib.sha256(b"right").hexdigest()
    card = replace(CARD, weights=str(nothing_here), files={"a.pt": digest})
    put(nothing_here / "a.pt", b"right")
    assert obtain(card) == nothing_here
    put(nothing_here / "a.pt", b"wrong")
    with pytest.raises(ConfigError, match=f"but the card means the file with {digest}"):
        obtain(card)
    with pytest.raises(ConfigError, match=f"but the card means the file with {digest}"):
        obtain(replace(card, weights=str(nothing_here / "a.pt")))


def test_twins_of_a_hub_are_the_same_weights(nothing_here: Path) -> None:
    card = replace(CARD, files={"model.safetensors": None}, weights=str(nothing_here))
    assert find(card) is None
    put(nothing_here / "pytorch_model.bin")
    assert find(card) == nothing_here


class Harmful:
    """Pickled, it makes a folder where it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_that_runs_code_is_not_opened(nothing_here: Path) -> None:
    torch.save(
        {"state_dict": {"a": torch.ones(1)}, "args": Harmful(nothing_here / "ran")}, nothing_here / "a.pt"
    )
    with pytest.raises(ConfigError, match="holds more than tensors and is not opened"):
        read_state(nothing_here / "a.pt")
    assert not (nothing_here / "ran").exists()


def test_tensors_come_out_of_what_is_around_them(nothing_here: Path) -> None:
    tensors = {"a.b": torch.ones(2), "c": torch.zeros(1)}
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in tensors.items()}, "epoch": 3}, nothing_here / "a.pt"
    )
    torch.save(tensors, nothing_here / "b.pt")
    save_file(tensors, nothing_here / "c.safetensors")
    for name in ("a.pt", "b.pt", "c.safetensors"):
        torch.testing.assert_close(read_state(nothing_here / name), tensors)
    put(nothing_here / "d.pt", b"not a checkpoint")
    with pytest.raises(ConfigError, match=r"is no checkpoint that can be read|is not opened"):
        read_state(nothing_here / "d.pt")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": torch.zeros(2, 3)}, "1 tensors differ, first: no bias"),
        ({"weight": torch.zeros(3, 2), "bias": torch.zeros(2)}, r"weight: expected \[2, 3\], got \[3, 2\]"),
        (
            {"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "scale": torch.zeros(1)},
            "first: no place for scale",
        ),
    ],
)
def test_a_module_takes_its_own_tensors_and_no_others(state: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fill(torch.nn.Linear(3, 2), state, origin=Path("here.pt"))


def test_an_unverified_licence_is_said_when_a_reward_is_loaded() -> None:
    assert any(card.licence.get("weights") == "unverified" for card in cards().values())
    with (
        pytest.warns(UserWarning, match="'pickscore-v1': nobody verified the licence"),
        pytest.raises(ConfigError),
    ):
        load_reward("pickscore-v1")
