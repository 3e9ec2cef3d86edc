"""One picture of any medium, for people to look at where nothing can be played."""

import io
from collections.abc import Sequence
from pathlib import Path

import PIL.Image
import torch
from torch import Tensor

from mmalign.evaluation.grid import draw_grid, resized, save_grid
from mmalign.evaluation.mesh_views import draw_mesh
from mmalign.media import Audio, Image, Media, Modality, Scene3D, Video, turntable

COLUMNS: dict[Modality, int] = {"audio": 3, "image": 6, "scene3d": 4, "speech": 3, "video": 2}
"""Of a picture of many previews: some are wide."""
MOST_FRAMES = 8
MOST_VIEWS = 16
TILE_PX = 192
"""Longer side of a frame or view."""
SOUND_PX = (480, 240)
BINS = 640
"""Points of a drawn waveform; each shows the lowest and highest sample of its time."""
MELS = 48
RANGE_DB = 80
INK, WAVE, EDGE = "#282828", "#2a62c9", "#b9bec5"


def preview(media: Media) -> PIL.Image.Image:
    """One picture of a medium.

    A picture is itself, at a size that people can look at; a video is a strip of up to 8 frames with their times; a
    sound its waveform over its mel spectrogram; a scene a grid of its views, or of views of its mesh.
    """
    match media:
        case Image():
            return resized(media.to_pil())
        case Video():
            return contact_strip(media)
        case Audio():
            return sound_picture(media)
        case Scene3D():
            return view_grid(media)


def save_previews(media: Sequence[Media], captions: Sequence[str], path: Path) -> None:
    """Write one picture of many media, each with its caption under it, whole or not at all."""
    save_grid([preview(medium) for medium in media], captions, path, columns=COLUMNS[media[0].modality])


def contact_strip(video: Video) -> PIL.Image.Image:
    """Up to 8 frames in a row, evenly from the first to the last, each with its time."""
    count = min(MOST_FRAMES, len(video.frames))
    shown = torch.linspace(0, len(video.frames) - 1, count).round().long().tolist()
    captions = [f"{index / video.fps:.2f} s" for index in shown]
    return draw_grid([_tile(video.frames[index]) for index in shown], captions, columns=count)


def view_pictures(scene: Scene3D, *, drawn: int = 4) -> list[PIL.Image.Image]:
    """The views of a scene as they are; of one that is only a mesh, ``drawn`` views around it, a little from above."""
    if scene.views is not None:
        return [Image(view).to_pil() for view in scene.views]
    assert scene.mesh is not None, "a scene has views or a mesh"
    return [draw_mesh(scene.mesh, camera) for camera in turntable(drawn, elevation_deg=20.0)]


def view_grid(scene: Scene3D) -> PIL.Image.Image:
    """The first 16 views of a scene, each with the direction that it was seen from, where that is known."""
    pictures = view_pictures(scene)[:MOST_VIEWS]
    cameras = scene.cameras if scene.views is not None else turntable(len(pictures), elevation_deg=20.0)
    captions = [f"{camera.azimuth_deg:.0f}°, {camera.elevation_deg:.0f}° up" for camera in cameras]
    captions = captions or [f"view {number}" for number in range(1, len(pictures) + 1)]
    columns = len(pictures) if len(pictures) <= 4 else 4
    return draw_grid([_tile(picture) for picture in pictures], captions[: len(pictures)], columns)


def sound_picture(audio: Audio) -> PIL.Image.Image:
    """The waveform, all channels over each other, above the mel spectrogram of their mean."""
    from matplotlib.figure import Figure  # heavy: only who draws pays for it

    width, height = SOUND_PX
    figure = Figure(figsize=(width / 100, height / 100), dpi=100, layout="constrained")
    wave, spectrum = figure.subplots(2, 1, sharex=True, height_ratios=[2, 3])
    low, high = envelope(audio.waveform.detach().float().cpu())
    times_s = torch.linspace(0, audio.duration_s, low.shape[1])
    for channel in range(len(low)):
        wave.fill_between(
            times_s, low[channel], high[channel], color=WAVE, alpha=0.8 / len(low) ** 0.5, linewidth=0.6
        )
    wave.set(ylim=(-1, 1), yticks=[-1, 0, 1], xlim=(0, audio.duration_s))
    decibels, highest_hz = mel_decibels(audio)
    spectrum.imshow(
        decibels, origin="lower", aspect="auto", cmap="magma", extent=(0, audio.duration_s, 0, len(decibels)),
        vmin=-RANGE_DB, vmax=0, interpolation="nearest",
    )  # fmt: skip
    spectrum.set(yticks=[0, len(decibels)], yticklabels=["0", f"{highest_hz / 1000:g} kHz"])
    channels = {1: "mono", 2: "stereo"}.get(len(low), f"{len(low)} channels")
    rate = f"{audio.sample_rate_hz / 1000:g} kHz"
    spectrum.set_xlabel(f"seconds; {audio.duration_s:.2f} s at {rate}, {channels}", fontsize=8, color=INK)
    for axes in (wave, spectrum):
        axes.tick_params(labelsize=7, colors=INK, length=2)
        axes.spines[:].set_color(EDGE)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return PIL.Image.open(file).convert("RGB")


def envelope(waveform: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest and the highest sample in each of at most 640 equal stretches of a sound.

    >>> envelope(torch.tensor([[0.5, -0.5]]))
    (tensor([[ 0.5000, -0.5000]]), tensor([[ 0.5000, -0.5000]]))

    Args:
        waveform: [C, N].

    Returns:
        Two of [C, min(N, 640)].
    """
    bins = min(BINS, waveform.shape[1])
    high = torch.nn.functional.adaptive_max_pool1d(waveform[None], bins)[0]
    return -torch.nn.functional.adaptive_max_pool1d(-waveform[None], bins)[0], high


def mel_decibels(audio: Audio) -> tuple[Tensor, float]:
    """Mel power of the mean of the channels, in dB below its own peak, and the highest frequency in Hz.

        dB = 10 log10(power / max power), at least -80; silence is -80 throughout

    Returns:
        [M, frames] in [-80, 0], M <= 48, and half the sample rate.
    """
    from torchaudio.transforms import MelSpectrogram

    window = max(256, 1 << (audio.sample_rate_hz // 20).bit_length())  # 50 to 100 ms
    transform = MelSpectrogram(
        audio.sample_rate_hz,
        n_fft=window,
        hop_length=max(1, audio.waveform.shape[1] // BINS, window // 16),
        n_mels=min(MELS, window // 8),
        pad_mode="constant",  # a sound may be shorter than its window
    )
    power = transform(audio.waveform.detach().float().cpu().mean(0))
    peak = power.max()
    if peak <= 0:
        return torch.full_like(power, -RANGE_DB), audio.sample_rate_hz / 2
    return (10 * (power / peak).clamp_min(10 ** (-RANGE_DB / 10)).log10()), audio.sample_rate_hz / 2


def _tile(picture: PIL.Image.Image | Tensor) -> PIL.Image.Image:
    """A frame or view at a size that several of fit beside each other."""
    tile = Image(picture).to_pil() if isinstance(picture, Tensor) else picture.copy()
    if max(tile.size) > TILE_PX:
        tile.thumbnail((TILE_PX, TILE_PX))
    return resized(tile)
