"""One hash for all media: it moves with the content, and with nothing else."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmalign.media import (
    Audio,
    Image,
    Media,
    Mesh,
    Sample,
    Scene3D,
    Speech,
    Video,
    content_hash,
    load_media,
    turntable,
)

random = torch.Generator().manual_seed(0)
PIXELS = torch.rand(4, 3, 6, 8, generator=random)
WAVE = torch.rand(1, 800, generator=random) - 0.5
MESH = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]), torch.zeros(3, 3))


def of(media: Media | None, prompt: str = "a") -> str:
    return content_hash(Sample(prompt, media))


def test_no_two_contents_are_alike() -> None:
    brighter = PIXELS.clone()
    brighter[2, 1, 3, 4] += 1 / 255
    louder = WAVE.clone()
    louder[0, 400] += 1 / 32768
    samples = [
        Sample("a"),
        Sample("b"),
        Sample("a", context={"negative": "b"}),
        Sample("a", context={"negative": "c"}),
        Sample("a", context={"lyrics": "b"}),
        Sample("a", context={"source": Image(PIXELS[0])}),
        Sample("a", context={"source": Image(PIXELS[1])}),
        *(
            Sample("a", media)
            for media in (
                Image(PIXELS[0]),
                Image(PIXELS[0].reshape(3, 8, 6)),
                Image(PIXELS[0].flip(0)),
                Video(PIXELS, 8.0),
                Video(PIXELS, 8.5),
                Video(PIXELS[:1], 8.0),
                Video(brighter, 8.0),
                Scene3D(PIXELS),
                Scene3D(PIXELS, turntable(4)),
                Scene3D(PIXELS, turntable(4, elevation_deg=5.0)),
                Scene3D(PIXELS, mesh=MESH),
                Scene3D(mesh=MESH),
                Scene3D(mesh=replace(MESH, colours=None)),
                Scene3D(mesh=replace(MESH, vertices=MESH.vertices * 2)),
                Scene3D(mesh=replace(MESH, faces=MESH.faces.flip(1))),
                Audio(WAVE, 8_000),
                Audio(WAVE, 16_000),
                Audio(louder, 8_000),
                Audio(WAVE.reshape(2, 400), 8_000),
                Speech(WAVE, 8_000),
            )
        ),
    ]
    hashes = [content_hash(sample) for sample in samples]
    assert len(set(hashes)) == len(samples)
    assert all(len(text) == 64 for text in hashes)


def test_words_cannot_move_from_one_part_to_the_next() -> None:
    """Parts that were only joined would spell these alike."""
    assert content_hash(Sample("", context={"a": "btextc"})) != content_hash(
        Sample("", context={"atextb": "c"})
    )
    assert of(None, "anonebtext") != content_hash(Sample("a", context={"btextnone": ""}))


def test_what_is_only_carried_along_does_not_count() -> None:
    picture = Image(PIXELS[0])
    assert content_hash(Sample("a", picture, meta={"seed": 3})) == of(picture)
    assert of(Speech(WAVE, 8_000, "go", "en")) == of(Speech(WAVE, 8_000))
    two = {"one": "1", "two": "2"}
    assert content_hash(Sample("a", context=two)) == content_hash(
        Sample("a", context=dict(reversed(two.items())))
    )


def test_steps_below_what_files_keep_do_not_count() -> None:
    grid = (PIXELS * 255).round() / 255
    assert of(Video(grid, 8)) == of(Video(grid + 0.4 / 255, 8.0))
    steps = (WAVE * 32768).round() / 32768
    assert of(Audio(steps, 8_000)) == of(Audio(steps + 0.4 / 32768, 8_000))
    assert of(Image(PIXELS[0].double())) == of(Image(PIXELS[0]))
    assert of(Image(PIXELS[0].clone().requires_grad_())) == of(Image(PIXELS[0]))
    assert of(Image(PIXELS[0].permute(1, 2, 0).contiguous().permute(2, 0, 1))) == of(Image(PIXELS[0]))


@pytest.mark.parametrize(
    ("name", "media"),
    [
        ("a.png", Image(PIXELS[0])),
        ("a.webp", Video(PIXELS, 8.0)),
        ("a.views.png", Scene3D(PIXELS, turntable(4))),
        ("a.glb", Scene3D(mesh=MESH)),
        ("a.wav", Audio(WAVE, 8_000)),
        ("a.flac", Audio(WAVE, 44_100)),
    ],
)
def test_what_is_saved_without_loss_keeps_its_hash(tmp_path: Path, name: str, media: Media) -> None:
    save: Callable[[Path], None] = media.save
    save(tmp_path / name)
    assert of(load_media(tmp_path / name)) == of(media)


def test_a_prompt_that_is_no_proper_text_has_a_hash_too() -> None:
    assert content_hash(Sample("\ud800")) != content_hash(Sample("\ud801"))


def test_another_process_gets_the_same_hash() -> None:
    script = """
import torch
from mmalign.media import Sample, Video, Speech, content_hash
frames = torch.linspace(0, 1, 2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
voice = Speech(torch.linspace(-1, 1, 100)[None], 16000)
print(content_hash(Sample("a red circle", Video(frames, 7.5), {"voice": voice, "b": "c", "a": "d"})))
"""
    other = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "1"},
    )
    frames = torch.linspace(0, 1, 2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    voice = Speech(torch.linspace(-1, 1, 100)[None], 16_000)
    here = Sample("a red circle", Video(frames, 7.5), {"voice": voice, "b": "c", "a": "d"})
    assert other.stdout.strip() == content_hash(here)
