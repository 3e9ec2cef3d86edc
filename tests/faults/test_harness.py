"""The harness itself: it sees every change of a file, and every difference of two results but those of the clock."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.faults.commands import ALIGN, COMMANDS
from tests.faults.contents import contents, differences
from tests.faults.damage import _spoil

CHANGES = """
import os, shutil, sys
from pathlib import Path
from tests.faults.events import watch

here = Path(sys.argv[1])
watch(here, lambda event: print(event.kind, os.path.relpath(event.path, here)))
(here / "new").mkdir()
(here / "new" / "a").write_text("a")
(here / "new" / "a").read_text()
os.rename(here / "new" / "a", here / "new" / "b")
Path(sys.argv[2]).write_text("elsewhere")
shutil.rmtree(here / "new")
"""
ROOT = Path(__file__).parents[2]
TIMES = ("0.4 s", "59 s", "1 min 0 s", "2 h 3 min", "2,310 MB")


def folder(place: Path, **changes: object) -> Path:
    """A small result."""
    place.mkdir()
    tensors = {"w": np.array([0.0, 1.0], np.float32), "nan": np.array([np.nan], np.float32)}
    save_file({**tensors, **changes.get("tensors", {})}, place / "w.safetensors")  # type: ignore[dict-item]
    summary = {"gain": 0.25, "wall_s": random.random(), "rounds": [{"step": 1, "at": random.random()}]}
    (place / "summary.json").write_text(json.dumps(summary | dict(changes.get("summary", {}))))  # type: ignore[call-overload]
    (place / "report.html").write_text(f"<td>gain 0.25, 3 steps</td><td>{random.choice(TIMES)}</td>")
    (place / "a.png").write_bytes(bytes(changes.get("picture", b"picture")))  # type: ignore[call-overload]
    return place


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"picture": b"pictures"}, ["a.png: differs at 7"]),
        ({"summary": {"gain": 0.2500001}}, ["summary.json: gain: 0.2500001 for 0.25"]),
        ({"summary": {"rounds": []}}, ["summary.json: rounds: [] for"]),
        ({"tensors": {"w": np.array([-0.0, 1.0], np.float32)}}, ["w.safetensors: w: differs at"]),
        ({"tensors": {"w": np.array([0.0, 1.0], np.float64)}}, ["w.safetensors: w: differs at 5"]),
        ({"tensors": {"v": np.zeros(1)}}, ["w.safetensors: v: "]),
    ],
)
def test_what_differs_is_found_and_the_clock_is_not(
    changes: dict[str, object], found: list[str], tmp_path: Path
) -> None:
    one, two = contents(folder(tmp_path / "one", **changes)), contents(folder(tmp_path / "two"))
    lines = differences(one, two)
    assert len(lines) == len(found)
    assert all(line.startswith(start) for line, start in zip(lines, found, strict=True))


def test_what_is_left_behind_or_missing_is_found(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "one"), folder(tmp_path / "two")
    (one / ".12.a.png").write_bytes(b"")
    (one / "a.png").unlink()
    (one / "events.out.tfevents.1.host").write_text("of another process, as every resumed run has")
    assert differences(contents(one), contents(two)) == [".12.a.png: left behind", "a.png: missing"]


def test_every_change_below_a_folder_is_shown_and_no_other(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    command = [sys.executable, "-c", CHANGES, str(here), str(tmp_path / "elsewhere")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        *("os.mkdir new", "open new/a", "os.rename new/a", "shutil.rmtree new"),
        *("os.remove new/b", "os.rmdir new"),
    ]


def test_damage_is_one_bit_or_a_shorter_file(tmp_path: Path) -> None:
    whole, file, flipped = bytes(range(200)), tmp_path / "a", 0
    for seed in range(40):
        file.write_bytes(whole)
        _spoil(file, random.Random(seed))
        now = file.read_bytes()
        assert now != whole
        if len(now) == len(whole):
            flipped += 1
            assert sum((a ^ b).bit_count() for a, b in zip(now, whole, strict=True)) == 1
        else:
            assert whole.startswith(now)
    assert 10 < flipped < 30


def test_six_families_and_every_other_command_that_makes_something_are_killed() -> None:
    recipes = {command.name.partition("/")[0] for command in ALIGN}
    assert recipes == {"image", "video", "scene3d", "audio", "speech"}
    assert len(ALIGN) == 6  # of pictures flow and diffusion
    assert len(COMMANDS) == 12
    assert {command.arguments[0] for command in COMMANDS.values()} == {
        *("align", "reward", "pairs", "export", "generate", "score")
    }
