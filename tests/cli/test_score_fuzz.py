"""Whatever lies in a folder or stands in a manifest: every row comes out, in order, and nothing outside is read."""

import io
import json
import math
import struct
import sys
import wave
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import pytest
import soundfile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mmalign.cli import score
from mmalign.data.readers import read_records, read_sample_files
from mmalign.errors import DataError
from mmalign.rewards.cards import load_reward
from mmalign.rewards.scoring import score_files

ROWS = 6
OPENED: list[str] = []
"""Paths that Python opened while somebody listened."""
_LISTENING = [False]


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _LISTENING[0] and event == "open" and isinstance(arguments[0], str):
        OPENED.append(arguments[0])


sys.addaudithook(_hear)


@contextmanager
def listening() -> Iterator[list[str]]:
    OPENED.clear()
    _LISTENING[0] = True
    try:
        yield OPENED
    finally:
        _LISTENING[0] = False


def saved(picture: PIL.Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@cache
def corpus() -> dict[str, bytes]:
    """Small files of every kind, sound and odd, by a name with their usual suffix."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    picture = PIL.Image.fromarray(pixels)
    sound = (random.normal(size=800) * 3000).astype(np.int16)
    plain, floating, clip = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with wave.open(plain, "wb") as file:
        file.setparams((1, 2, 8_000, len(sound), "NONE", ""))
        file.writeframes(sound.tobytes())
    soundfile.write(
        floating, np.where(np.arange(800) == 7, np.nan, sound / 32768), 8_000, "FLOAT", format="WAV"
    )
    with av.open(clip, "w", format="mp4") as video:
        stream = video.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8), "rgb24")
            video.mux(stream.encode(frame))
        video.mux(stream.encode(None))
    header = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 200_000, 200_000, 8, 2, 0, 0, 0))
    return {
        "plain.png": saved(picture, "PNG"),
        "plain.jpg": saved(picture, "JPEG"),
        "cmyk.jpg": saved(picture.convert("CMYK"), "JPEG"),
        "deep.png": saved(PIL.Image.fromarray(random.integers(0, 65_536, (9, 7)).astype(np.uint16)), "PNG"),
        "clear.png": saved(picture.convert("RGBA"), "PNG"),
        "palette.png": saved(picture.convert("P"), "PNG"),
        "moving.gif": saved(picture, "GIF", save_all=True, append_images=[picture.rotate(90)], duration=100),
        "huge.png": header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b""),
        "plain.webp": saved(picture, "WEBP"),
        "low.wav": plain.getvalue(),
        "nan.wav": floating.getvalue(),
        "clip.mp4": clip.getvalue(),
        "empty.png": b"",
        "words.txt": b"these are words",
    }


UNSOUND = ("empty.png", "huge.png", "nan.wav", "words.txt")
SOUND = tuple(name for name in corpus() if name not in UNSOUND)
SUFFIXES = (
    ".png",
    ".jpg",
    ".gif",
    ".webp",
    ".wav",
    ".mp4",
    ".tif",
    ".bmp",
    ".flac",
    ".webm",
    ".glb",
    ".views.png",
    "",
)

damage = st.one_of(
    st.just(("none", 0.0, b"")),
    st.tuples(st.just("cut"), st.floats(0, 1), st.just(b"")),
    st.tuples(st.just("flip"), st.floats(0, 1), st.binary(min_size=1, max_size=4)),
    st.tuples(st.just("append"), st.just(0.0), st.binary(max_size=20)),
)
names = st.one_of(
    st.none(),
    st.just("../outside.png"),
    st.just("{outside}"),
    st.just("link.png"),
    st.just("sub/../../outside.png"),
    st.just("gone.png"),
    st.just("."),
    st.just(""),
    st.text(max_size=12),
    st.just("x" * 400 + ".png"),
)
files = st.tuples(st.sampled_from(sorted(corpus())), damage, st.none() | st.sampled_from(SUFFIXES))
rows = st.lists(files | names, min_size=ROWS, max_size=ROWS)


def damaged(data: bytes, how: tuple[str, float, bytes]) -> bytes:
    kind, share, extra = how
    at = round(share * len(data))
    if kind == "cut":
        return data[:at]
    if kind == "flip":
        return data[:at] + extra + data[at + len(extra) :]
    return data + extra


def every_row_comes_out(folder: Path, drawn: list[Any]) -> None:
    """Write a manifest and its files, score it, and look at each row."""
    root = folder / "root"
    root.mkdir(parents=True)
    outside = folder / "outside.png"
    outside.write_bytes(corpus()["plain.png"])
    (root / "link.png").symlink_to(outside)
    entries: list[dict[str, Any]] = []
    whole: list[bool] = []
    for i, entry in enumerate(drawn):
        if isinstance(entry, tuple):
            name, how, suffix = entry
            written = f"{i}{Path(name).suffix if suffix is None else suffix}"
            (root / written).write_bytes(damaged(corpus()[name], how))
            entries.append({"media": written, "prompt": f"row {i}"})
            whole.append(name in SOUND and how[0] == "none" and suffix is None)
        else:
            medium = entry.replace("{outside}", str(outside)) if entry else entry
            entries.append({"media": medium, "prompt": f"row {i}"})
            whole.append(False)
    table = root / "rows.jsonl"
    table.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    found = read_sample_files([table])
    with listening() as opened:
        scored = list(score_files(found, [load_reward("placebo")], batch_size=4, threads=2))
    assert [row.prompt for row in scored] == [f"row {i}" for i in range(len(drawn))]
    for row, sound in zip(scored, whole, strict=True):
        assert (row.score is not None) == (row.status == "ok")
        assert row.score is None or math.isfinite(row.score)
        assert row.status == "ok" or not sound, row.status
        assert "\n" not in row.status
    for row, entry in zip(scored, drawn, strict=True):
        if isinstance(entry, str) and ("outside" in entry or entry == "link.png"):
            assert "lies outside" in row.status
    assert opened or not any(whole), "the hook hears what is opened"
    assert not [path for path in opened if Path(path).resolve() == outside]


slowly = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


@settings(max_examples=40, deadline=None, suppress_health_check=slowly)
@given(drawn=rows)
@example(drawn=["a\nb.png", None, "\n", "\r", "\u2028", "../outside.png"])
def test_no_row_is_lost(tmp_path_factory: pytest.TempPathFactory, drawn: list[Any]) -> None:
    every_row_comes_out(tmp_path_factory.mktemp("fuzz"), drawn)


@pytest.mark.slow
@settings(max_examples=900, deadline=None, suppress_health_check=slowly)
@given(drawn=rows)
def test_no_row_is_lost_in_five_thousand(tmp_path_factory: pytest.TempPathFactory, drawn: list[Any]) -> None:
    every_row_comes_out(tmp_path_factory.mktemp("fuzz"), drawn)


@settings(max_examples=60, deadline=None, suppress_health_check=slowly)
@given(
    data=st.binary(max_size=80)
    | st.text(max_size=60).map(str.encode)
    | st.lists(
        st.dictionaries(
            st.sampled_from(["media", "prompt", "id"]), st.text(max_size=5) | st.integers() | st.none()
        )
    ).map(lambda rows: "\n".join(map(json.dumps, rows)).encode()),
    suffix=st.sampled_from([".jsonl", ".csv", ".parquet"]),
)
def test_a_table_is_read_or_refused_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str
) -> None:
    path = tmp_path_factory.mktemp("table") / f"rows{suffix}"
    path.write_bytes(data)
    for read in (
        lambda: list(read_records(path)),
        lambda: read_sample_files([path], prompt=None, needs_prompt=False),
    ):
        said = str(path)
        try:
            read()
        except DataError as error:
            said = str(error)
        assert said.startswith(str(path))


def test_the_command_writes_a_row_for_each_of_the_corpus(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name, data in corpus().items():
        (folder / name).write_bytes(data)
    (folder / "wrong.jpg").write_bytes(corpus()["low.wav"])
    out = tmp_path / "scores.jsonl"
    arguments = [str(folder), "--prompt", "x", "--reward", "placebo", "--batch-size", "3", "--out", str(out)]
    assert score.main(arguments) == 1
    rows = {Path(row["media"]).name: row for row in map(json.loads, out.read_text().splitlines())}
    expected = {*corpus(), "wrong.jpg"} - {"words.txt"}
    assert set(rows) == expected
    assert {name for name, row in rows.items() if row["score"] is not None} == set(SOUND)
    assert "pixels" in rows["huge.png"]["status"]
