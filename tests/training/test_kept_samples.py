"""What a resumed stage takes from a folder of samples: whole batches as they were written, and nothing else."""

import json
import random
from pathlib import Path

import pytest

from mmalign.errors import DataError
from mmalign.training.folder import RunFolder
from mmalign.training.kept_samples import METADATA, SUMS, check_samples, json_lines, kept_batches, sums_line

PROMPTS = [f"a circle\u2028number {i}" for i in range(6)]
SEEDS = list(range(10, 16))
BATCH = 2


def row(i: int) -> str:
    return (
        json.dumps({"file_name": f"{i}.png", "prompt": PROMPTS[i], "seed": SEEDS[i]}, ensure_ascii=False)
        + "\n"
    )


def written(folder: Path, count: int = 6) -> Path:
    """Samples as ``write_samples`` leaves them."""
    folder.mkdir()
    with (folder / METADATA).open("w") as rows, (folder / SUMS).open("w") as sums:
        for start in range(0, count, BATCH):
            files = [folder / f"{i}.png" for i in range(start, start + BATCH)]
            for path in files:
                path.write_bytes(f"picture {path.name}".encode())
            text = "".join(row(i) for i in range(start, start + BATCH))
            rows.write(text)
            sums.write(sums_line(text, files))
    return folder


def kept(folder: Path, *, prompts: list[str] = PROMPTS, again: bool = True) -> int:
    kept_batches(folder, prompts, SEEDS, batch_size=BATCH, again=again)
    return len(json_lines(folder / METADATA)) if (folder / METADATA).exists() else 0


def flip(path: Path, at: int, bit: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :])


def test_what_is_whole_stays_and_a_line_separator_in_a_prompt_is_no_end_of_line(tmp_path: Path) -> None:
    folder = written(tmp_path / "s")
    before = (folder / METADATA).read_bytes(), (folder / SUMS).read_bytes()
    assert kept(folder) == 6
    assert ((folder / METADATA).read_bytes(), (folder / SUMS).read_bytes()) == before
    check_samples(folder)


def test_a_damaged_sample_is_drawn_again_with_all_after_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(tmp_path / "s")
    flip(folder / "3.png", 4, 2)
    with pytest.raises(DataError, match=r"3.png is not as it was written; what was learned"):
        check_samples(folder)
    with pytest.raises(DataError, match="drawn by weights that are no more"):
        kept(folder, again=False)
    assert kept(folder) == 2
    assert "drawing again from sample 2 on" in " ".join(capsys.readouterr().err.split())
    assert len(json_lines(folder / SUMS)) == 1
    assert kept(folder) == 2


def test_every_flipped_bit_of_rows_and_sums_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    draw, whole = random.Random(0), (written(tmp_path / "whole") / METADATA).read_text()
    for number in range(60):
        folder = written(tmp_path / f"s{number}")
        path = folder / (METADATA if number % 2 else SUMS)
        flip(path, draw.randrange(path.stat().st_size), draw.randrange(8))
        count = kept(folder)
        assert count % BATCH == 0
        assert (folder / METADATA).read_text() == "".join(row(i) for i in range(count)), (
            "a changed row stayed"
        )
        assert whole.startswith((folder / METADATA).read_text())
        check_samples(folder)


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_kill_between_samples_and_rows_costs_one_batch(cut: int, tmp_path: Path) -> None:
    folder = written(tmp_path / "s")
    data = (folder / METADATA).read_bytes()
    (folder / METADATA).write_bytes(data[:-cut])
    assert kept(folder) == 4
    assert len(json_lines(folder / SUMS)) == 2


def test_other_prompts_are_drawn_anew_from_the_first_that_differs(tmp_path: Path) -> None:
    assert kept(written(tmp_path / "s"), prompts=[*PROMPTS[:3], "another", *PROMPTS[4:]]) == 2
    assert kept(tmp_path / "s", prompts=["another"] * 6) == 0


def test_a_folder_of_an_older_version_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = written(tmp_path / "s")
    (folder / SUMS).unlink()
    assert kept(folder) == 6
    assert kept(folder) == 6


# --- the run's own state ----------------------------------------------------------------------------------------------


def test_passes_count_what_was_kept_and_once(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.begin("samples/before", 0, 0)
    run.keep(10, "samples/before", 2)
    run.keep(30, "samples/before", 4)  # killed before the second batch was noted
    assert RunFolder(tmp_path).denoiser_passes == 30
    again = RunFolder(tmp_path)
    again.begin("samples/before", 2, 0)
    assert again.denoiser_passes == 10
    again.keep(20, "samples/before", 4)
    again.begin("training", 0, 20)
    for step in range(1, 9):
        again.keep(20 + 5 * step, "training", step)
    assert again.denoiser_passes == 30 + 40
    back = RunFolder(tmp_path)  # to the checkpoint before the last
    back.begin("training", 7, 3)
    assert back.denoiser_passes == 30 + 35
    back.keep(3 + 5, "training", 8)
    assert back.denoiser_passes == 30 + 40


def test_a_damaged_state_gives_no_number_and_no_traceback(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.keep(12, "training", 1)
    assert RunFolder(tmp_path).denoiser_passes == 12
    whole = run.state_file.read_bytes()
    for at in range(0, len(whole), 3):
        run.state_file.write_bytes(whole)
        flip(run.state_file, at, at % 8)
        assert RunFolder(tmp_path).denoiser_passes is None, whole[at : at + 1]
    run.state_file.write_text('{"wall_s": 3.5, "denoiser_passes": 7}')  # as an older version wrote it
    assert RunFolder(tmp_path).denoiser_passes == 7


def test_a_sealed_file_is_whole_until_a_bit_is_another(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    path = tmp_path / "labels" / "round-1.jsonl"
    assert not run.whole(path)
    path.parent.mkdir()
    path.write_text("{}\n")
    assert run.whole(path)  # of an older version
    run.seal(path)
    assert run.whole(path)
    flip(path, 1, 0)
    assert not run.whole(path)
    assert (tmp_path / "SHA256SUMS").read_text().endswith("  labels/round-1.jsonl\n")
