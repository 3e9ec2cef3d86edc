"""What one file holds is not what ``score`` and ``serve`` take: bombs are refused by name, and others are answered."""

import base64
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from mmalign.cli import score
from mmalign.errors import DataError
from mmalign.media import Image, Sample, SampleFile
from mmalign.media.decoding import Growing, decoding, take
from mmalign.media.room import Room, held_bytes
from mmalign.rewards.cards import load_card, load_reward
from mmalign.rewards.remote import fetch_card
from mmalign.rewards.scoring import score_batches
from mmalign.rewards.wire import encode_sample
from mmalign.web.handler import Limits
from mmalign.web.server import RewardServer

MOST_BYTES = 1.5 * 2**30
TOKEN = "correct-horse-battery"
# Not what wait4 says: that begins with the peak of whoever forked.
MEASURED = """
import re, sys
from pathlib import Path
from mmalign.cli.main import main
status = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
sys.exit(status)
"""


def png(path: Path, side: int, *, mode: str = "RGB") -> None:
    PIL.Image.new(mode, (side, side), (10, 200, 30, 90)[: len(mode)]).save(path)


def flac(path: Path, minutes: float) -> None:
    import soundfile

    soundfile.write(path, np.zeros(round(minutes * 60 * 44_100), dtype=np.int16), 44_100)


def gif(path: Path, frames: int, side: int) -> None:
    pictures = [PIL.Image.new("L", (side, side), 255 * (number % 2)) for number in range(frames)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=20)


def mp4(path: Path, frames: int) -> None:
    import av

    with av.open(str(path), "w") as opened:
        stream: Any = opened.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.zeros((720, 1280, 3), np.uint8), format="rgb24")
        for number in range(frames):
            picture.pts = number
            opened.mux(stream.encode(picture))
        opened.mux(stream.encode())


def obj(path: Path, faces: int) -> None:
    path.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n" + "f 1 2 3\n" * faces)


BOMBS: dict[str, tuple[Callable[[Path], None], str, bool]] = {
    "8192.png": (lambda path: png(path, 8192), "sharpness", False),
    "16384.png": (lambda path: png(path, 16_384), "sharpness", False),
    "5000.png": (lambda path: png(path, 5000), "sharpness", True),
    "5000-clear.png": (lambda path: png(path, 5000, mode="RGBA"), "embedded/shapes-clip", True),
    "40-minutes.flac": (lambda path: flac(path, 40), "loudness-bs1770", False),
    "7-minutes.flac": (lambda path: flac(path, 7), "embedded/tones-clap", True),
    "long.mp4": (lambda path: mp4(path, 1500), "motion-amount", False),
    "10000-frames.gif": (lambda path: gif(path, 10_000, 16), "motion-amount", True),
    "10000-large-frames.gif": (lambda path: gif(path, 10_000, 256), "motion-amount", False),
    "many-faces.obj": (lambda path: obj(path, 5_000_000), "mesh-soundness", False),
}
"""How each is made, what scores it, and whether it has a score."""


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_score_stays_below_a_gigabyte_and_a_half(name: str, tmp_path: Path) -> None:
    make, reward, scored = BOMBS[name]
    path, out = tmp_path / name, tmp_path / "scores.jsonl"
    make(path)
    arguments = ["score", str(path), "--reward", reward, "--prompt", "x", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert "Traceback" not in done.stderr, done.stderr
    peak = int(done.stdout.split()[-1]) * 1024
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    if not scored:
        assert re.search(r"--max-medium-mb|max_pixels|too large", row["status"]), row["status"]
        assert done.returncode == 1
    elif row["score"] is None:
        assert "reading" not in row["status"]
    print(f"{name}: {peak / 2**30:.2f} GiB, {row['status'][-60:]}")
    assert peak <= MOST_BYTES


@contextmanager
def served(reward: str, *options: str) -> Iterator[tuple[str, int]]:
    command = [sys.executable, "-m", "mmalign", "serve", "--reward", reward, "--port", "0", "--token", TOKEN]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.terminate()
            process.wait(60)


def ask(url: str, samples: list[Any]) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    request = urllib.request.Request(url + "/v1/score", json.dumps({"samples": samples}).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.mark.slow
def test_five_hundred_are_answered_while_eight_bombs_are_refused(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    png(bomb, 8192)
    data = base64.b64encode(bomb.read_bytes()).decode()
    bombs = [{"prompt": "x", "media": {"type": "image/png", "data": data}}] * 8
    small = [
        [encode_sample(Sample("x", Image(torch.full((3, 64, 64), number / 499))))] for number in range(500)
    ]
    with served("sharpness") as (url, pid), ThreadPoolExecutor(508) as pool:
        begun = time.monotonic()
        refused = [pool.submit(ask, url, bombs) for _ in range(8)]
        answered = list(pool.map(lambda samples: ask(url, samples), small))
        took = time.monotonic() - begun
        for status, answer in (future.result() for future in refused):
            assert status == 200
            for entry in answer["scores"]:
                assert entry["score"] is None
                assert "the limit is 512 MB" in entry["status"]
                assert "--max-medium-mb" in entry["status"]
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert [status for status, _ in answered] == [200] * 500
    assert all(answer["scores"][0]["status"] == "ok" for _, answer in answered)
    assert peak is not None
    print(f"500 of 500 in {took:.1f} s, {int(peak[1]) / 2**20:.2f} GiB")
    assert int(peak[1]) * 1024 <= MOST_BYTES


# In small, for every run of the suite


def test_a_medium_above_the_limit_is_a_row_that_says_how_to_raise_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    png(tmp_path / "large.png", 512)
    png(tmp_path / "small.png", 64)
    files = [str(tmp_path / "large.png"), str(tmp_path / "small.png")]
    arguments = [*files, "--reward", "placebo", "--prompt", "x", "--format", "jsonl"]
    assert score.main([*arguments, "--max-medium-mb", "1"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["score"] is None for row in rows] == [True, False]
    assert (
        "takes 6 MB of memory, the limit is 1 MB; make it smaller, or raise the limit with --max-medium-mb"
        in (rows[0]["status"])
    )
    assert score.main([*arguments, "--max-medium-mb", "6"]) == 0


@pytest.mark.parametrize("threads", [1, 4])
def test_what_is_read_ahead_fits_and_nothing_changes_but_the_parts(tmp_path: Path, threads: int) -> None:
    sides = [200, 40, 300, 300, 20, 250, 300, 10, 280, 60]
    files = []
    for number, side in enumerate(sides):
        png(tmp_path / f"{number}.png", side)
        files.append(SampleFile(str(number), tmp_path / f"{number}.png", "x", f"{number}.png"))
    files[4].path.write_bytes(b"")  # type: ignore[union-attr]
    rewards = [load_reward("placebo"), load_reward("sharpness")]
    wide, narrow = (
        [
            row.record([])
            for batch in score_batches(files, rewards, batch_size=7, threads=threads, most_bytes=most)
            for row in batch
        ]
        for most in (2**30, 20 * 300 * 300)
    )
    assert narrow == wide
    assert [row["score"] is None for row in narrow[::2]] == [number == 4 for number in range(10)]


def test_a_request_too_large_for_the_room_is_sent_in_halves() -> None:
    """Four pictures of 64 x 64 are 49 kB each and 82 while they are read, so two fit into 150 kB."""
    server = RewardServer(load_reward("placebo"), token=TOKEN, limits=Limits(medium_bytes=150_000))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    samples = [Sample("x", Image(torch.full((3, 64, 64), number / 255))) for number in range(4)]
    large = Sample("x", Image(torch.zeros(3, 128, 128)))
    try:
        remote = load_card(fetch_card(server.url, token=TOKEN))
        found = remote.score([large, *samples])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert found.value[1:].tolist() == load_reward("placebo").score(samples).value.tolist()
    assert "takes 1 MB of memory, the limit is 1 MB" in found.status[0]
    assert (server.media.held, server.bodies.held) == (0, 0)


def test_room_is_given_in_order_and_never_above_the_total() -> None:
    room = Room(100)
    sizes = [60, 60, 30, 90, 10, 100, 5]
    order: list[int] = []

    def read(number: int) -> None:
        room.admit(number, sizes[number])
        order.append(number)
        room.settle(number, sizes[number] // 2)

    readers = [threading.Thread(target=read, args=(number,)) for number in reversed(range(len(sizes)))]
    for reader in readers:
        reader.start()
    parts: list[list[int]] = [[]]
    for number in range(len(sizes)):
        if parts[-1] and room.needs_more(number):
            room.release(number - 1)
            parts.append([])
        parts[-1].append(number)
    for reader in readers:
        reader.join(20)
    assert order == list(range(len(sizes)))
    assert room.most <= 100
    # Half of each is kept: 30 + 60 and 60 + 30 fit, 75 + 90 do not; 45 + 10 do, 50 + 100 do not; 50 + 5 do.
    assert parts == [[0, 1, 2], [3, 4], [5, 6]]


def test_the_limit_of_who_reads_takes_the_place_of_the_readers_own(tmp_path: Path) -> None:
    png(tmp_path / "large.png", 64)
    with pytest.raises(DataError, match="load it with max_pixels="):
        Image.load(tmp_path / "large.png", max_pixels=100)
    with decoding(most_bytes=20 * 64 * 64, option="--more"):
        assert Image.load(tmp_path / "large.png", max_pixels=100).pixels.shape == (3, 64, 64)


def test_growing_media_take_what_they_turn_out_to_hold() -> None:
    admitted: list[int] = []
    with decoding(most_bytes=100, option="--more", admit=admitted.append) as counted:
        growing = Growing(40)
        for size in (10, 40, 50, 90):
            growing.reach(size)
        with pytest.raises(Exception, match=r"raise the limit with --more"):
            growing.reach(101)
        take(10)
    assert admitted == [40, 10, 40, 10]
    assert counted.taken == 100
    take(10**12)  # nobody counts here
    assert (
        held_bytes(Sample("x", Image(torch.zeros(3, 4, 4)), {"reference": Image(torch.zeros(3, 2, 2))}))
        == 240
    )
