"""Two real processes meet on the CPU, count each other, add up, and notice when one of them is gone."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mmalign.errors import ConfigError
from mmalign.launching import check_alone, launched
from mmalign.processes import Processes

TOGETHER = """
import os, signal, torch
from mmalign.processes import Processes
all = Processes()
mine = all.share(5)
assert all.count == int(all.sum(torch.ones(()))) == 2
assert all.gather(torch.tensor(list(mine)) * 1.5, total=5).tolist() == [0.0, 1.5, 3.0, 4.5, 6.0]
print("told", all.tell("by process 0" if all.main else ""), flush=True)
if all.rank == 1:
    os.kill(os.getpid(), signal.SIGKILL)
all.wait()
print("never", flush=True)
"""


def start_two(code: str, **extra: str) -> list[subprocess.Popen[str]]:
    """Two processes as a launcher starts them."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    return [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"},
                **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **extra},
            },
        )
        for rank in range(2)
    ]


def test_two_are_two_and_a_killed_one_ends_the_other_with_its_name() -> None:
    first, second = start_two(TOGETHER)
    try:
        said, complaint = first.communicate(timeout=60)
        also, _ = second.communicate(timeout=60)
    finally:
        first.kill()
        second.kill()
    assert said == also == "told by process 0\n", complaint
    assert second.returncode == -signal.SIGKILL
    assert first.returncode not in (0, None)
    assert "process 1 of 2 processes is gone" in complaint
    assert "--resume" in complaint


def test_one_process_is_one_and_refuses_to_be_a_part_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Processes().count == 1
    monkeypatch.setenv("WORLD_SIZE", "2")  # a launcher started two, and they have not met
    with pytest.raises(ConfigError, match="the launcher started 2 processes, and this one has met 0 others"):
        Processes()


def test_a_launcher_that_started_one_for_two_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert launched() == 1
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(ConfigError, match=r"started one alone.*torchrun"):
        launched()
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert launched() == 3


def test_what_does_not_share_its_work_is_refused_to_several(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    check_alone("score")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"score is one process, and a launcher started 2.*--shard"):
        check_alone("score")
