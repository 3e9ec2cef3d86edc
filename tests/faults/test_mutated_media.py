"""Media of every kind with something wrong in them: a medium comes out, or one sentence, and no other file is opened.

MMALIGN_MUTANTS says how many the slow test makes.
"""

import os
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import PIL.Image
import pytest
import torch

from mmalign.errors import DataError
from mmalign.media import MEDIA, Audio, Image, Mesh, Scene3D, Video, load_media, turntable
from mmalign.media.from_bytes import media_from_bytes

MUTANTS = int(os.environ.get("MMALIGN_MUTANTS", "2000"))
OUTSIDE = "outside.mtl"
"""Beside the folder of the media, and no business of their readers."""
PIECES: tuple[bytes, ...] = (
    b"", b"\0", b"\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\1", b"RIFF",
    b"WAVE",
    b"data", b"IHDR", b"IDAT", b"moov", b"mdat", b"OggS", b"fLaC", b"ID3", b"Xing", b"GIF89a", b"!\xf9\4",
    b"\xff\xd8\xff",
    b"Exif\0\0", b"nan", b"inf", b"-1", b"1e999", b"9" * 400, b"\n", b"f 1 2 99999\n", b"v nan nan nan\n",
    b"mtllib ../outside.mtl\n", b"mtllib /etc/passwd\n", b'"uri":"../outside.mtl",', b"element vertex 99999999\n",
    b"map_Kd ../outside.mtl\n",
)  # fmt: skip


@cache
def whole() -> dict[str, bytes]:
    """One small sound file of every kind."""
    draw = torch.Generator().manual_seed(0)
    frames = torch.rand(3, 3, 16, 16, generator=draw)
    sound = Audio(torch.rand(2, 2_000, generator=draw) - 0.5, 16_000)
    mesh = Scene3D(
        mesh=Mesh(
            torch.rand(6, 3, generator=draw), torch.randint(6, (8, 3), generator=draw), torch.rand(6, 3)
        )
    )
    found = {}
    with TemporaryDirectory() as folder:
        root = Path(folder)
        for suffix in ("png", "jpg", "webp", "bmp", "gif", "tif"):
            Image(frames[0]).save(root / f"still.{suffix}")
        for suffix in ("mp4", "webm", "gif", "webp"):
            Video(frames, 8.0).save(root / f"moving.{suffix}")
        for suffix in ("wav", "flac", "ogg", "mp3"):
            sound.save(root / f"sound.{suffix}")
        for suffix in ("glb", "obj", "ply", "stl"):
            mesh.save(root / f"mesh.{suffix}")
        Scene3D(frames, turntable(3)).save(root / "scene.views.png")
        turned = PIL.Image.new("RGB", (8, 16))
        exif = turned.getexif()
        exif[PIL.ExifTags.Base.Orientation] = 6
        turned.save(root / "turned.jpg", exif=exif)
        for path in sorted(root.iterdir()):
            found[path.name] = path.read_bytes()
    return found


def mutant(data: bytes, draw: random.Random) -> bytes:
    """The same bytes with one to four changes, more often near the beginning, where headers are."""
    for _ in range(draw.randint(1, 4)):
        end = min(len(data), 300) if draw.random() < 0.5 else len(data)
        at = draw.randrange(end + 1)
        to = min(len(data), at + draw.choice((1, 1, 2, 4, 16, 256)))
        match draw.randrange(8):
            case 0:
                data = data[:at]
            case 1:
                data = data[:at] + data[to:]
            case 2:
                data = data[:to] + data[at:]
            case 3:
                data = data[:at] + draw.choice(PIECES) + data[at:]
            case 4:
                piece = draw.choice(PIECES)
                data = data[:at] + piece + data[at + len(piece) :]
            case 5:
                other = draw.choice(list(whole().values()))
                data = data[:at] + other[at:]
            case _ if data:
                at = min(at, len(data) - 1)
                data = data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :]
    return data


_OPENED: list[str] = []
_LISTENING = [False]


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _LISTENING[0] and event == "open" and isinstance(arguments[0], str):
        _OPENED.append(arguments[0])


sys.addaudithook(_hear)


@contextmanager
def listening() -> Iterator[list[str]]:
    _OPENED.clear()
    _LISTENING[0] = True
    try:
        yield _OPENED
    finally:
        _LISTENING[0] = False


def wrong_with(path: Path, data: bytes, modality: Any, told: Counter[str]) -> str | None:
    """What reading does with a mutant that it must not do; None where it gives a medium or refuses it as it should."""
    try:
        if modality == "bytes":
            media = media_from_bytes(data, name="row 1", suffix=path.suffix)
        else:
            media = load_media(path, modality)
    except DataError as error:
        told["refused"] += 1
        return "a message of many lines" if "\n" in str(error) or len(str(error)) > 1_000 else None
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} in {Path(last.filename).name}, {last.name}: {str(error)[:200]}"
    return None if isinstance(media, tuple(MEDIA.values())) else f"a {type(media).__name__}"


def run_mutants(folder: Path, count: int, seed: int) -> tuple[Counter[str], dict[str, str]]:
    """Make ``count`` mutants and read each: how many were new and how many refused, and each fault with a file."""
    root, draw, seen = folder / "root", random.Random(seed), set[bytes]()
    root.mkdir()
    (folder / OUTSIDE).write_text("newmtl x\nKd 1 0 0\n")
    told: Counter[str] = Counter()
    faults: dict[str, str] = {}
    names = list(whole())
    while told["mutants"] < count:
        name = draw.choice(names)
        data = mutant(whole()[name], draw)
        if data in seen or data == whole()[name]:
            told["alike"] += 1
            continue
        seen.add(data)
        told["mutants"] += 1
        path = root / name
        path.write_bytes(data)
        modality = None if draw.random() < 0.8 else draw.choice([*MEDIA, "bytes"])
        with listening() as opened:
            fault = wrong_with(path, data, modality, told)
            outside = [n for n in opened if Path(n).name == OUTSIDE or n.startswith("/etc/passwd")]
        fault = "a file outside was opened" if outside else fault
        if fault is not None and f"{name}: {fault}" not in faults:
            kept = folder / f"{len(faults)}-{name}"
            kept.write_bytes(data)
            faults[f"{name}: {fault}"] = str(kept)
        path.unlink()
    return told, faults


quiet = pytest.mark.filterwarnings("ignore")


@quiet
def test_some_mutated_media_are_a_medium_or_a_sentence(tmp_path: Path) -> None:
    told, faults = run_mutants(tmp_path, 250, seed=0)
    assert not faults
    assert told["mutants"] == 250
    assert 50 < told["refused"] < 240  # some are whole, and some are not


@pytest.mark.slow
@quiet
def test_many_mutated_media_are_a_medium_or_a_sentence(tmp_path: Path) -> None:
    start = time.monotonic()
    told, faults = run_mutants(tmp_path, MUTANTS, seed=1)
    print(dict(told), f"{time.monotonic() - start:.0f} s")
    assert not faults
    assert told["mutants"] == MUTANTS


@quiet
def test_every_kind_is_sound_before_it_is_changed(tmp_path: Path) -> None:
    assert len(whole()) == 20
    for name, data in whole().items():
        (tmp_path / name).write_bytes(data)
        load_media(tmp_path / name)
