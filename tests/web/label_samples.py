"""Folders of samples of every medium, drawn by the worlds: of each prompt the first is right, the others are not."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mmalign.media import WRITTEN_SUFFIX, Audio, Image, Media, Mesh, Scene3D
from mmalign.worlds import commands, moving_shapes, shapes, tones, views

MEDIUMS = ("image", "video", "scene3d", "audio", "speech")


def write_samples(
    folder: Path, medium: str, *, prompts: int, each: int = 2, captions: Sequence[str] = (), **options: Any
) -> Path:
    """``prompts`` x ``each`` samples and their metadata.jsonl; ``captions`` in place of the worlds' own."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for p in range(prompts):
        scenes, texts = scenes_of(medium)
        # Another one for each prompt, and wrong ones from far away.
        at = [(37 * p + 61 * i) % len(scenes) for i in range(each)]
        for i, sample in enumerate(drawn(medium, [scenes[k] for k in at], seed=p, **options)):
            name = f"{p * each + i:05d}{WRITTEN_SUFFIX[medium]}"
            sample.save(folder / name)
            if isinstance(sample, Scene3D) and i % 2 == 0:
                Scene3D(mesh=a_mesh(p)).save(folder / name.replace(".views.png", ".glb"))
            text = captions[p % len(captions)] if captions else texts(scenes[at[0]])
            rows.append({"file_name": name, "prompt": text, "seed": i})
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "metadata.jsonl").write_text(lines, encoding="utf-8")
    return folder


def scenes_of(medium: str) -> tuple[list[Any], Any]:
    """All scenes of a medium's world, and how they are put in words."""
    match medium:
        case "image":
            return [(shape,) for shape in shapes.all_shapes()], shapes.caption
        case "video":
            return moving_shapes.all_scenes(), moving_shapes.caption
        case "scene3d":
            return views.all_solids(), views.caption
        case "audio":
            return tones.all_scenes(), tones.caption
        case _:
            return commands.all_commands(), commands.caption


def drawn(medium: str, scenes: list[Any], *, seed: int, side_px: int = 64) -> Sequence[Media]:
    """One sample of each scene; of speech where nothing can speak, hums of different pitch."""
    generator = torch.Generator().manual_seed(seed)
    match medium:
        case "image":
            return [Image(pixels) for pixels in shapes.render(scenes, generator, side_px=side_px)]
        case "video":
            return moving_shapes.videos(scenes, generator, side_px=side_px)
        case "scene3d":
            return views.scenes(scenes, generator, view_px=side_px)
        case "audio":
            return tones.sounds(scenes, generator)
        case _:
            try:
                return commands.speeches(scenes, generator)
            except ImportError:
                time_s = torch.arange(8000) / 16_000
                return [
                    Audio(0.4 * torch.sin(2 * torch.pi * (200 + 100 * i) * time_s)[None], 16_000)
                    for i in range(len(scenes))
                ]


def a_mesh(number: int) -> Mesh:
    """A box with coloured corners, another shape for each number."""
    size = torch.tensor([1.0, 0.6 + 0.1 * (number % 4), 0.5])
    corners = torch.tensor([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = torch.tensor([face for a, b, c, d in quads for face in ((a, b, c), (a, c, d))])
    return Mesh(corners * size, faces, (corners + 1) / 2 * 0.7 + 0.2)
