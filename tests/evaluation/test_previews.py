"""One picture of any medium: of all of it, in order, and true to its axes."""

import numpy as np
import pytest
import torch

from mmalign.evaluation import previews
from mmalign.evaluation.grid import GAP_PX
from mmalign.evaluation.mesh_views import draw_mesh
from mmalign.evaluation.previews import envelope, mel_decibels, preview
from mmalign.media import Audio, Camera, Image, Mesh, Scene3D, Speech, Video, turntable

RATE = 16_000


def greys(count: int, side_px: int = 64) -> torch.Tensor:
    """[count, 3, side, side], from black to white."""
    return torch.linspace(0, 1, count)[:, None, None, None].expand(count, 3, side_px, side_px)


def tiles(picture: np.ndarray, count: int, side_px: int) -> list[int]:
    """The middle of each of ``count`` tiles in the first row."""
    return [
        int(picture[GAP_PX + side_px // 2, GAP_PX + side_px // 2 + i * (side_px + GAP_PX), 0])
        for i in range(count)
    ]


def tone(pitch_hz: float) -> torch.Tensor:
    return 0.5 * torch.sin(2 * torch.pi * pitch_hz * torch.arange(RATE) / RATE)


def test_a_picture_is_itself() -> None:
    pixels = torch.rand(3, 200, 150, generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(np.array(preview(Image(pixels))), np.array(Image(pixels).to_pil()))


@pytest.mark.parametrize(
    ("frames", "shown"), [(1, [0]), (3, [0, 1, 2]), (8, list(range(8))), (15, [0, 2, 4, 6, 8, 10, 12, 14])]
)
def test_a_video_is_a_strip_from_its_first_frame_to_its_last(frames: int, shown: list[int]) -> None:
    video = Video(greys(frames), 8.0)
    picture = np.array(preview(video))
    assert picture.shape[1] == GAP_PX + len(shown) * (128 + GAP_PX)
    expected = (video.frames[shown, 0, 0, 0] * 255).round().int().tolist()
    assert tiles(picture, len(shown), 128) == expected


def test_large_frames_are_reduced() -> None:
    assert preview(Video(greys(8, 700), 8.0)).width == GAP_PX + 8 * (previews.TILE_PX + GAP_PX)


def test_a_scene_is_a_grid_of_its_views() -> None:
    picture = np.array(preview(Scene3D(greys(6), turntable(6))))
    assert picture.shape[1] == GAP_PX + 4 * (128 + GAP_PX)
    assert tiles(picture, 4, 128) == [0, 51, 102, 153]
    assert preview(Scene3D(greys(40))).size == preview(Scene3D(greys(16))).size


def bars(height_of: dict[str, float]) -> Mesh:
    """A red plate that looks along +x and a blue one that looks along +y, both standing on the ground."""
    red = torch.tensor([[1.0, -0.5, 0], [1.0, 0.5, 0], [1.0, 0, height_of["red"]]])
    blue = torch.tensor([[-0.5, 1.0, 0], [0.5, 1.0, 0], [0, 1.0, height_of["blue"]]])
    colours = torch.tensor([[1.0, 0, 0]] * 3 + [[0, 0, 1.0]] * 3)
    return Mesh(torch.cat([red, blue]), torch.tensor([[0, 1, 2], [3, 4, 5]]), colours)


def test_a_mesh_is_seen_from_where_the_camera_stands() -> None:
    mesh = bars({"red": 1.0, "blue": 1.0})

    def area(azimuth: float) -> tuple[float, float]:
        picture = np.array(draw_mesh(mesh, Camera(azimuth))).astype(float)
        return float((picture[..., 2] < 128).mean()), float((picture[..., 0] < 128).mean())

    red, blue = area(0)
    assert red > 10 * blue, "from +x the red plate faces us and the blue one is a line"
    red, blue = area(90)
    assert blue > 10 * red


def test_up_is_up_and_right_is_right() -> None:
    mesh = Mesh(torch.tensor([[0.0, -1, 0], [0, 1, 0], [0, 1, 2]]), torch.tensor([[0, 1, 2]]))
    dark = np.array(draw_mesh(mesh, Camera(0), side_px=100))[..., 0] < 250
    rows, columns = np.nonzero(dark)
    assert columns[rows < 30].min() > 60, "the high corner is at +y, on the right of one who looks along -x"
    assert dark[70].sum() > dark[35].sum() > 0


def test_near_triangles_hide_far_ones() -> None:
    square = torch.tensor([[0.0, -1, -1], [0, 1, -1], [0, 1, 1], [0, -1, 1]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    near_and_far = torch.cat([square + torch.tensor([0.5, 0, 0]), square - torch.tensor([0.5, 0, 0])])
    colours = torch.tensor([[1.0, 0, 0]] * 4 + [[0, 0, 1.0]] * 4)
    mesh = Mesh(near_and_far, torch.cat([faces, faces + 4]), colours)
    assert np.array(draw_mesh(mesh, Camera(0)))[96, 96].tolist() == [255, 0, 0]
    assert np.array(draw_mesh(mesh, Camera(180)))[96, 96].tolist() == [0, 0, 255]


def test_a_mesh_of_any_size_fills_its_picture_and_a_point_is_no_fault() -> None:
    mesh = bars({"red": 1.0, "blue": 0.5})
    large = Mesh(mesh.vertices * 1e6 + 5e6, mesh.faces, mesh.colours)
    np.testing.assert_array_equal(
        np.array(draw_mesh(mesh, Camera(30, 10))), np.array(draw_mesh(large, Camera(30, 10)))
    )
    draw_mesh(Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]])), Camera())
    assert preview(Scene3D(mesh=mesh)).width == GAP_PX + 4 * (192 + GAP_PX)


def test_a_waveform_keeps_its_peaks() -> None:
    waveform = torch.zeros(2, 100_000)
    waveform[0, 77_777], waveform[1, 3] = 0.9, -0.8
    low, high = envelope(waveform)
    assert low.shape == high.shape == (2, previews.BINS)
    assert high.amax(1).tolist() == pytest.approx([0.9, 0])
    assert low.amin(1).tolist() == pytest.approx([0, -0.8])
    assert int(high[0].argmax()) == 77_777 * previews.BINS // 100_000


def test_the_spectrogram_has_a_line_at_the_pitch() -> None:
    """HTK mel: 2595 log10(1 + f / 700); the bands are evenly spaced from 0 to half the rate."""
    for pitch_hz in (300.0, 1000.0, 5000.0):
        decibels, highest_hz = mel_decibels(Audio(tone(pitch_hz)[None], RATE))
        assert highest_hz == 8_000
        assert decibels.max() == 0
        assert decibels.min() >= -80
        middle = decibels[:, decibels.shape[1] // 2]
        band = np.log10(1 + pitch_hz / 700) / np.log10(1 + 8_000 / 700) * (len(middle) + 1) - 1
        assert abs(int(middle.argmax()) - band) <= 1


def test_the_spectrogram_shows_when() -> None:
    late = torch.cat([torch.zeros(RATE), tone(1000)])[None]
    decibels, _ = mel_decibels(Audio(late, RATE))
    heard = (decibels.amax(0) > -40).nonzero().flatten()
    assert 200 < decibels.shape[1] < 1000
    assert heard.min() / decibels.shape[1] == pytest.approx(0.5, abs=0.03)
    assert heard.max() / decibels.shape[1] > 0.97


@pytest.mark.parametrize(
    "sound",
    [
        Audio(torch.zeros(1, 1), 8_000),
        Audio(torch.zeros(3, 50_000), 48_000),
        Speech(tone(200)[None, :300], 100),
    ],
)
def test_any_sound_has_a_picture(sound: Audio) -> None:
    assert preview(sound).size == previews.SOUND_PX


def test_loud_and_quiet_look_different_and_twice_the_same_looks_the_same() -> None:
    loud, quiet = (np.array(preview(Audio(gain * tone(440)[None], RATE))) for gain in (1.0, 0.1))
    assert (loud[:100] != quiet[:100]).any(), "the waveform is drawn to scale"
    np.testing.assert_array_equal(loud, np.array(preview(Audio(tone(440)[None], RATE))))
