"""Whatever bytes a media file has, reading it gives a medium or one sentence, and never fills the memory."""

import struct
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import PIL.Image
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmalign.errors import DataError
from mmalign.media import MEDIA, Audio, Image, Mesh, Modality, Scene3D, Video, load_media, turntable

pytestmark = [
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
]
random = torch.Generator().manual_seed(0)
FRAMES = torch.rand(4, 3, 16, 16, generator=random)
WAVE = torch.rand(2, 3_000, generator=random) - 0.5
MESH = Mesh(torch.rand(6, 3, generator=random), torch.randint(6, (8, 3), generator=random), torch.rand(6, 3))
SAVED: dict[str, Callable[[Path], None]] = {
    **{f"a.{suffix}": Image(FRAMES[0]).save for suffix in ("png", "jpg", "webp", "bmp", "gif", "tif")},
    **{f"b.{suffix}": Video(FRAMES, 8.0).save for suffix in ("mp4", "webm", "gif", "webp")},
    **{f"c.{suffix}": Audio(WAVE, 16_000).save for suffix in ("wav", "flac", "ogg", "mp3")},
    **{f"d.{suffix}": Scene3D(mesh=MESH).save for suffix in ("glb", "obj", "ply", "stl")},
    "e.views.png": Scene3D(FRAMES, turntable(4)).save,
}


@cache
def whole(name: str) -> bytes:
    with TemporaryDirectory() as folder:
        SAVED[name](Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def check(path: Path, data: bytes, modality: Modality | None = None) -> bool:
    """Read these bytes; whether a medium came out of them. Anything but a medium or our one sentence is a failure."""
    path.write_bytes(data)
    try:
        media = load_media(path, modality)
    except DataError as error:
        said = str(error)
    else:
        assert isinstance(media, tuple(MEDIA.values()))
        return True
    assert str(path) in said
    assert "\n" not in said
    return False


def damaged(data: bytes) -> st.SearchStrategy[bytes]:
    """The same bytes cut short, with some of them changed, or with others put in."""
    places = st.integers(0, len(data) - 1)

    def change(edits: list[tuple[int, int]]) -> bytes:
        changed = bytearray(data)
        for place, value in edits:
            changed[place] = value
        return bytes(changed)

    def insert(edit: tuple[int, bytes]) -> bytes:
        return data[: edit[0]] + edit[1] + data[edit[0] :]

    header = st.tuples(st.integers(0, min(len(data), 256) - 1), st.integers(0, 255))
    anywhere = st.tuples(places, st.integers(0, 255))
    return st.one_of(
        places.map(lambda end: data[:end]),
        st.lists(header, min_size=1, max_size=3).map(change),
        st.lists(anywhere, min_size=1, max_size=8).map(change),
        st.tuples(places, st.binary(min_size=1, max_size=64)).map(insert),
    )


# A file of each kind is made once and damaged many times, in a folder that all its examples share.
many = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("name", SAVED)
def test_a_damaged_file_is_a_medium_or_a_sentence(tmp_path: Path, name: str) -> None:
    @many
    @given(data=damaged(whole(name)))
    def run(data: bytes) -> None:
        check(tmp_path / name, data)

    assert check(tmp_path / name, whole(name)), "the file is sound before it is damaged"
    run()


@pytest.mark.parametrize("name", [name for name in SAVED if name[-3:] not in ("obj", "stl")])
def test_half_a_file_is_a_sentence(tmp_path: Path, name: str) -> None:
    assert not check(tmp_path / name, whole(name)[: len(whole(name)) // 2])


@pytest.mark.parametrize("name", SAVED)
def test_no_bytes_are_a_sentence(tmp_path: Path, name: str) -> None:
    assert not check(tmp_path / name, b"")


@pytest.mark.parametrize("name", SAVED)
def test_a_file_under_the_suffix_of_another_is_a_medium_or_a_sentence(tmp_path: Path, name: str) -> None:
    for other in SAVED:
        check(tmp_path / name, whole(other))
    for modality in ("image", "video", "scene3d", "audio", "speech"):
        check(tmp_path / name, whole(name), modality)


@many
@given(data=st.binary(max_size=300))
def test_noise_is_a_medium_or_a_sentence(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        for name in SAVED:
            check(Path(folder) / name, data)


def bombs() -> dict[str, bytes | bytearray]:
    """Small files whose headers promise more than a machine holds."""
    flac = bytearray(whole("c.flac"))
    flac[21:26] = bytes([flac[21] | 0x0F]) + b"\xff" * 4  # 36 bits of STREAMINFO: the number of samples
    wav = bytearray(whole("c.wav"))
    at = wav.index(b"data") + 4
    wav[at : at + 4] = struct.pack("<I", 0x7FFE0000)
    gif = bytearray(whole("b.gif"))
    gif[6:10] = struct.pack("<2H", 65_535, 65_535)
    webp = bytearray(whole("b.webp"))
    webp[24:30] = (9_999).to_bytes(3, "little") * 2  # the canvas of each of its frames, less one
    glb = whole("d.glb").replace(b'"count":6', b'"count":6' + b"0" * 11, 1)
    ply = whole("d.ply").replace(b"element vertex 6", b"element vertex 600000000000", 1)
    return {"a.flac": flac, "a.wav": wav, "a.gif": gif, "a.webp": webp, "a.glb": glb, "a.ply": ply}


def memory_mb(field: str) -> float:
    """Of this process, as Linux counts it: VmRSS is what it has, VmHWM the most it had since the last reset."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is counted in other units elsewhere")
def test_headers_that_promise_too_much_do_not_fill_the_memory(tmp_path: Path) -> None:
    # What tests before this one took is no room for it.
    Path("/proc/self/clear_refs").write_text("5")
    before = memory_mb("VmRSS")
    assert memory_mb("VmHWM") < before + 50
    for name, data in bombs().items():
        assert not check(tmp_path / name, bytes(data)), name
    PIL.Image.new("1", (13_000, 13_000)).save(tmp_path / "a.png")  # 169 megapixels in 21 kB
    assert not check(tmp_path / "a.png", (tmp_path / "a.png").read_bytes())
    assert memory_mb("VmHWM") - before < 300
    held = torch.ones(100, 1024, 1024)  # 400 MB
    assert memory_mb("VmHWM") - before > 300, f"the peak is seen, also of {held.nbytes} bytes"
