"""Folders of samples of every medium, drawn by the worlds: of each prompt the first is right, the others are not."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mmalign.media import WRITTEN_SUFFIX, Audio, Image, Media, Mesh, Scene3D
from mmalign.worlds import commands, moving_shapes, shapes, tones, views
from mmalign.worlds.solids import SOLIDS

MEDIUMS = ("image", "video", "scene3d", "audio", "speech")


def write_samples(
    folder: Path,
    medium: str,
    *,
    prompts: int,
    each: int = 2,
    captions: Sequence[str] = (),
    numbered: bool = False,
    **options: Any,
) -> Path:
    """``prompts`` x ``each`` samples and their metadata.jsonl.

    ``captions`` stand in place of the worlds' own; ``numbered`` makes prompts differ where there are more than scenes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for p in range(prompts):
        scenes, texts = scenes_of(medium)
        # Another one for each prompt, and wrong ones from far away.
        at = [(37 * p + 61 * i) % len(scenes) for i in range(each)]
        for i, sample in enumerate(drawn(medium, [scenes[k] for k in at], seed=p, **options)):
            name = f"{p * each + i:05d}{WRITTEN_SUFFIX[medium]}"
            sample.save(folder / name)
            if isinstance(sample, Scene3D):
                Scene3D(mesh=mesh_of(scenes[at[i]])).save(folder / name.replace(".views.png", ".glb"))
            text = captions[p % len(captions)] if captions else texts(scenes[at[0]])
            rows.append({"file_name": name, "prompt": f"{text} ({p})" if numbered else text, "seed": i})
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


def mesh_of(solid: views.Solid) -> Mesh:
    """The solid's own surface, without its noise."""
    import trimesh

    half, ends = SOLIDS[solid.kind]
    if solid.kind == "sphere":
        body = trimesh.creation.icosphere(subdivisions=2)
    elif ends is None:
        body = trimesh.creation.box([2 * side for side in half])
    elif ends[1]:
        body = trimesh.creation.cylinder(radius=ends[0], height=2 * half[2], sections=24)
    else:
        body = trimesh.creation.cone(radius=ends[0], height=2 * half[2], sections=24)
        body.apply_translation([0, 0, -half[2]])
    body.apply_scale(views.SIZES[solid.size])
    vertices = torch.tensor(body.vertices.tolist())
    colours = torch.tensor(views.COLOURS[solid.colour]).clamp(0, 1).expand(len(vertices), 3)
    return Mesh(vertices, torch.tensor(body.faces.tolist()), colours.contiguous())
