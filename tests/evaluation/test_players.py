"""Elements of a page that hold their medium themselves and are small."""

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import PIL.Image
import pytest
import torch

from mmalign.evaluation import page
from mmalign.evaluation.players import player
from mmalign.media import Audio, Image, Mesh, Scene3D, Video, turntable

random = torch.Generator().manual_seed(0)
FRAMES = torch.rand(6, 3, 32, 32, generator=random)


def elements(html: str) -> list[tuple[str, str, bytes]]:
    """Tag, kind and data of every element with data in it."""
    found = re.findall(r'<(\w+)[^>]* src="data:([\w/]+);base64,([^"]+)"', html)
    return [(tag, kind, base64.b64decode(data)) for tag, kind, data in found]


def loaded(kind: type, suffix: str, data: bytes) -> object:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        path.write_bytes(data)
        return kind.load(path)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "save", "expected"),
    [
        ("a.png", Image(FRAMES[0]).save, [("img", "image/png")]),
        ("a.mp4", Video(FRAMES, 8.0).save, [("video", "video/mp4")]),
        ("a.webm", Video(FRAMES, 8.0).save, [("video", "video/webm")]),
        ("a.gif", Video(FRAMES, 8.0).save, [("img", "image/gif")]),
        ("a.webp", Video(FRAMES, 8.0).save, [("img", "image/webp")]),
        (
            "a.wav",
            Audio(FRAMES.flatten()[None, :8_000] - 0.5, 8_000).save,
            [("img", "image/png"), ("audio", "audio/wav")],
        ),
        (
            "a.mp3",
            Audio(FRAMES.flatten()[None, :8_000] - 0.5, 8_000).save,
            [("img", "image/png"), ("audio", "audio/mpeg")],
        ),
    ],
)
def test_small_files_go_in_byte_for_byte(
    tmp_path: Path, name: str, save: Callable[[Path], None], expected: list[tuple[str, str]]
) -> None:
    save(tmp_path / name)
    found = elements(player(tmp_path / name, "before: a <b>"))
    assert [element[:2] for element in found] == expected
    assert found[-1][2] == (tmp_path / name).read_bytes()


@pytest.mark.parametrize("suffix", [".mp4", ".webp"])
def test_a_large_video_is_made_small_and_keeps_its_motion(tmp_path: Path, suffix: str) -> None:
    frames = torch.nn.functional.interpolate(FRAMES, size=(300, 450), mode="nearest") * 0.5
    noisy = frames + 0.4 * torch.rand(frames.shape, generator=random)
    Video(noisy, 10.0).save(tmp_path / f"a{suffix}")
    assert (tmp_path / f"a{suffix}").stat().st_size > page.LARGEST_BYTES
    [(tag, kind, data)] = elements(player(tmp_path / f"a{suffix}", "a"))
    assert (tag, kind) == ("video", "video/mp4")
    video = loaded(Video, ".mp4", data)
    assert isinstance(video, Video)
    assert (video.frames.shape, video.fps) == ((6, 3, 214, 320), 10.0)
    expected = torch.nn.functional.interpolate(noisy, size=(214, 320), mode="bilinear", antialias=True)
    distances = (video.frames[:, None] - expected[None]).abs().mean((2, 3, 4))
    assert distances.argmin(1).tolist() == list(range(6)), "each frame is where it was"
    assert distances.diagonal().max() < 0.08
    assert len(data) < (tmp_path / f"a{suffix}").stat().st_size / 2


def test_codecs_that_not_all_browsers_have_are_replaced(tmp_path: Path) -> None:
    import av

    with av.open(tmp_path / "a.mp4", "w") as container:
        stream = container.add_stream("mpeg4", rate=8, width=33, height=32, pix_fmt="yuv420p")
        for frame in torch.rand(3, 32, 33, 3, generator=random).mul(255).byte().numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    [(tag, kind, data)] = elements(player(tmp_path / "a.mp4", "a"))
    assert (tag, kind) == ("video", "video/mp4")
    assert b"avc1" in data
    assert b"avc1" not in (tmp_path / "a.mp4").read_bytes()


@pytest.mark.parametrize(
    ("rate", "channels", "expected"), [(16_000, 1, 16_000), (10_000, 1, 11_025), (96_000, 3, 48_000)]
)
def test_a_long_sound_becomes_mp3(tmp_path: Path, rate: int, channels: int, expected: int) -> None:
    wave = 0.3 * torch.sin(2 * torch.pi * 300 * torch.arange(12 * rate) / rate).expand(channels, -1)
    Audio(wave, rate).save(tmp_path / "a.wav")
    assert (tmp_path / "a.wav").stat().st_size > page.LARGEST_BYTES
    (_, (tag, kind, data)) = elements(player(tmp_path / "a.wav", "a"))
    assert (tag, kind) == ("audio", "audio/mpeg")
    sound = loaded(Audio, ".mp3", data)
    assert isinstance(sound, Audio)
    assert sound.sample_rate_hz == expected
    assert sound.duration_s == pytest.approx(12, abs=0.01)
    assert len(data) < page.LARGEST_BYTES


@pytest.mark.parametrize("views", [True, False])
def test_a_scene_turns_around(tmp_path: Path, views: bool) -> None:
    scene = (
        Scene3D(FRAMES, turntable(6))
        if views
        else Scene3D(mesh=Mesh(torch.eye(3), torch.tensor([[0, 1, 2]])))
    )
    name = "a.views.png" if views else "a.glb"
    scene.save(tmp_path / name)
    [(tag, kind, data)] = elements(player(tmp_path / name, "a"))
    assert (tag, kind) == ("img", "image/webp")
    with PIL.Image.open(io.BytesIO(data)) as turning:
        assert turning.n_frames == (6 if views else 12)  # type: ignore[attr-defined]
        assert turning.size == ((32, 32) if views else (192, 192))
        assert turning.info["loop"] == 0
    assert len(data) < page.LARGEST_BYTES


@pytest.mark.parametrize("name", ["a.mp4", "a.wav", "a.glb", "a.views.png", "a.png", "a.xyz"])
def test_what_cannot_be_read_is_said_to_be_so(tmp_path: Path, name: str) -> None:
    for content in (None, b"no medium"):
        if content:
            (tmp_path / name).write_bytes(content)
        html = player(tmp_path / name, 'before: a "large" <b>')
        assert "not readable" in html
        assert "&quot;large&quot; &lt;b&gt;" in html
        assert "src=" not in html


def test_every_element_says_what_it_shows(tmp_path: Path) -> None:
    Video(FRAMES, 8.0).save(tmp_path / "a.mp4")
    Audio(torch.zeros(1, 800), 8_000).save(tmp_path / "a.wav")
    assert 'aria-label="after: &lt;b&gt;"' in player(tmp_path / "a.mp4", "after: <b>")
    assert player(tmp_path / "a.wav", "after: x").count("after: x") == 2
