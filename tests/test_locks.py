"""One command at a time on a folder or an output; the second is told who has it, and a killed one lets go."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mmalign.locks import LockedError, locked_folder, locked_output
from mmalign.unfinished import temporary_name

HOLD = """
import sys
from pathlib import Path
from mmalign.locks import locked_folder, locked_output
with {kind}(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["locked_folder", "locked_output"])
def test_a_second_process_is_refused_with_the_first_ones_number_until_it_is_killed(
    kind: str, tmp_path: Path
) -> None:
    place = tmp_path / "run"
    lock = locked_folder if kind == "locked_folder" else locked_output
    command = [sys.executable, "-c", HOLD.format(kind=kind), str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(LockedError, match=rf"run is being written by Python, process {other.pid}; wait"),
            lock(place),
        ):
            pass
        other.send_signal(signal.SIGKILL)
        other.wait()
    with lock(place):  # what it left is taken over
        pass
    assert not any(path.is_file() for path in tmp_path.rglob("*")), "the lock stayed"


def test_the_same_process_is_no_exception_and_nothing_is_left(tmp_path: Path) -> None:
    with (
        locked_output(tmp_path / "a.jsonl"),
        locked_output(tmp_path / "b.jsonl"),
        pytest.raises(LockedError, match=f"process {os.getpid()}"),
        locked_output(tmp_path / "a.jsonl"),
    ):
        pass
    with locked_folder(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_of_an_output_and_its_companions_goes(tmp_path: Path) -> None:
    out, partial, other = (tmp_path / name for name in ("a.jsonl", "a.jsonl.partial", "b.jsonl"))
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    left = [
        tmp_path / temporary_name(path.name).replace(f"-{os.getpid()}-", f"-{gone.pid}-")
        for path in (out, partial, other)
    ]
    for path in left:
        path.write_text("half")
    with locked_output(out, partial, None):
        assert [path.exists() for path in left] == [False, False, True], "only this command's own"
