"""Files and folders are whole or not there, whoever is killed, whatever is full, and whichever library writes."""

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmalign.data.readers import read_sample_files
from mmalign.errors import MmalignError, NonFiniteError
from mmalign.files import WriteError, whole_file, whole_folder, writing
from mmalign.locks import locked_folder, locked_output
from mmalign.media import Image
from mmalign.unfinished import is_unfinished, remove_abandoned, temporary_name
from mmalign.weights import check_finite, first_not_finite, write_weights


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def run(code: str, *arguments: str, umask: int = 0o022) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, umask=umask
    )


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), whole_file(path) as unfinished:
        unfinished.write_text(str(1 / 0))
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_every_writer_has_a_name_of_its_own_with_the_suffixes(tmp_path: Path) -> None:
    with whole_file(tmp_path / "a.views.png") as one, whole_file(tmp_path / "a.views.png") as two:
        assert one != two
        assert one.name.endswith(".views.png")
        one.write_text("1")
        two.write_text("2")
    assert names(tmp_path) == ["a.views.png"]


def test_names_as_long_as_the_system_takes(tmp_path: Path) -> None:
    for name in ("x" * 251 + ".txt", "é" * 120 + ".txt"):
        with whole_file(tmp_path / name) as unfinished:
            unfinished.write_text("a")
    assert len(names(tmp_path)) == 2
    too_long = pytest.raises(
        WriteError, match="the name is too long for this file system; give a shorter one"
    )
    with too_long, whole_file(tmp_path / ("x" * 300)):
        pass


def test_the_umask_decides_the_mode_of_files_and_of_folders(tmp_path: Path) -> None:
    umask = 0o027
    code = """
import sys, torch
from pathlib import Path
from mmalign.files import whole_folder
from mmalign.weights import write_weights
place = Path(sys.argv[1])
write_weights(place / "a.safetensors", {"w": torch.ones(2)})
with whole_folder(place / "folder") as folder:
    write_weights(folder / "below" / "b.safetensors", {"w": torch.ones(2)})
"""
    done = run(code, str(tmp_path), umask=umask)
    assert done.returncode == 0, done.stderr
    for path in (tmp_path / "a.safetensors", tmp_path / "folder" / "below" / "b.safetensors"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask, path
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~umask


def test_a_folder_is_there_when_all_of_it_is(tmp_path: Path) -> None:
    target = tmp_path / "lora"
    with pytest.raises(ZeroDivisionError), whole_folder(target) as unfinished:
        (unfinished / "a").write_text(str(1 / 0))
    assert names(tmp_path) == []
    with whole_folder(target) as unfinished:
        (unfinished / "a").write_text("1")
        assert not target.exists()
    assert (names(tmp_path), names(target)) == (["lora"], ["a"])


def test_a_folder_that_holds_something_keeps_it_and_gets_the_last_file_last(tmp_path: Path) -> None:
    target = tmp_path / "reward"
    target.mkdir()
    for name in ("mine.txt", "card.yaml"):
        (target / name).write_text("old")
    with whole_folder(target, last="card.yaml") as unfinished:
        (unfinished / "card.yaml").write_text("new")
        (unfinished / "below").mkdir()
        (unfinished / "below" / "head").write_text("new")
    assert names(target) == ["below", "card.yaml", "mine.txt"]
    assert (target / "mine.txt").read_text() == "old"
    assert (target / "card.yaml").read_text() == "new"


# --- killed -----------------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from mmalign.files import whole_file
with whole_file(Path(sys.argv[1])) as unfinished:
    unfinished.write_bytes(b"half a picture")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_no_sample_and_goes_with_the_next_command(tmp_path: Path) -> None:
    Image(torch.zeros(3, 8, 8)).save(tmp_path / "whole.png")
    assert run(KILLED, str(tmp_path / "half.png")).returncode == -signal.SIGKILL
    (left,) = [path for path in tmp_path.iterdir() if path.name != "whole.png"]
    assert left.suffix == ".png"
    assert is_unfinished(left)
    assert [Path(str(file.path)).name for file in read_sample_files([tmp_path], prompt="a circle")] == [
        "whole.png"
    ]
    with locked_folder(tmp_path):
        assert not left.exists()
    assert names(tmp_path) == ["whole.png"]


def test_beside_an_output_only_its_own_leftovers_of_dead_processes_go(tmp_path: Path) -> None:
    assert run(KILLED, str(tmp_path / "scores.jsonl")).returncode == -signal.SIGKILL
    (dead,) = tmp_path.iterdir()
    alive, other = tmp_path / temporary_name("scores.jsonl"), tmp_path / temporary_name("other.jsonl")
    for path in (alive, other):  # of this process, which runs
        path.touch()
    remove_abandoned(tmp_path / "scores.jsonl")
    assert not dead.exists()
    assert alive.exists()
    assert other.exists()
    with locked_output(tmp_path / "scores.jsonl"):
        assert alive.exists()


# --- what cannot be written -------------------------------------------------------------------------------------------


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file above 4 kB: what a full disk is to a library."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, old)


@pytest.mark.usefixtures("small_files")
def test_a_library_that_finds_no_room_is_one_sentence_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(path, {"w": torch.zeros(4)})
    with pytest.raises(
        WriteError, match=r"w.safetensors: could not be written: .* write elsewhere"
    ) as caught:
        write_weights(path, {"w": torch.zeros(4000)})  # safetensors has the number in its message alone
    assert caught.value.errno == errno.EFBIG
    assert load_file(path)["w"].shape == (4,)
    with pytest.raises(WriteError, match="could not be written"):
        Image(torch.rand(3, 64, 64)).save(tmp_path / "noise.png")
    assert names(tmp_path) == ["w.safetensors"]


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (errno.ENOSPC, "the disk is full; make room"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "no permission"),
    ],
)
def test_what_is_wrong_with_the_disk_is_said_with_the_way_out(number: int, word: str, tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=word), writing(tmp_path / "a"):
        raise OSError(number, os.strerror(number), str(tmp_path / "a"))


def test_an_error_of_another_file_is_not_that_of_the_output(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), writing(tmp_path / "out" / "a"):
        raise PermissionError(errno.EACCES, "denied", "/elsewhere/input.csv")


def test_a_file_where_a_folder_is_and_a_device_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(WriteError, match="a part of this path is a file"),
        whole_file(tmp_path / "file" / "a"),
    ):
        pass
    for path in (tmp_path, Path("/dev/null")):
        with pytest.raises(MmalignError, match="no ordinary file"), whole_file(path):
            pass


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_not_written(bad: float, tmp_path: Path) -> None:
    good = {"a": torch.ones(3), "large": torch.full((9,), 3e38), "n": torch.tensor(2), "none": torch.zeros(0)}
    assert first_not_finite(good.items()) is None  # though the sum of the large ones overflows
    weights = {**good, "b.lora_A": torch.tensor([1.0, bad, 2.0], dtype=torch.bfloat16)}
    with pytest.raises(NonFiniteError, match=r"not finite, first in b.lora_A; they were not written"):
        check_finite(weights, "w")
    with pytest.raises(NonFiniteError):
        write_weights(tmp_path / "w.safetensors", weights)
    assert names(tmp_path) == []
