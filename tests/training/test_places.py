"""Where results may go: nothing of a person is overwritten, and a disk that takes nothing is told at once."""

import os
from pathlib import Path

import pytest

from mmalign.errors import ConfigError
from mmalign.training.places import check_new_folder, check_space, check_writable, existing
from mmalign.unfinished import temporary_name


def test_a_new_or_empty_folder_is_fine_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    for out in (tmp_path, tmp_path / "a" / "b"):
        check_new_folder(out)
        check_space(out, 0)
    assert not list(tmp_path.iterdir())
    probe = tmp_path / temporary_name("of-another-process")
    probe.mkdir()
    check_new_folder(tmp_path)
    probe.rmdir()
    assert existing(tmp_path / "a" / "b") == tmp_path


def test_a_folder_with_something_in_it_is_taken(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists already; give another --out"):
        check_new_folder(tmp_path)
    with pytest.raises(ConfigError, match="exists already"):
        check_new_folder(tmp_path / "mine.txt")
    with pytest.raises(ConfigError, match=r"mine\.txt is a file"):
        check_new_folder(tmp_path / "mine.txt" / "run")
    check_writable(tmp_path)  # a reward may be trained into its own folder anew


def test_a_disk_that_takes_nothing_is_told() -> None:
    with pytest.raises(ConfigError, match=r"/proc/run cannot be written \(.*\); give another --out"):
        check_new_folder(Path("/proc/run"))


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to an administrator")
def test_a_folder_of_somebody_else_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot be written"):
        check_new_folder(tmp_path / "run")


def test_a_disk_without_room_is_told_with_both_numbers(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"about \d+ MB are needed and \d+ are free; make room"):
        check_space(tmp_path, 2**60)
