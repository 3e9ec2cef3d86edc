"""The reward of whole videos: frames by a CLIP, their order by a temporal head."""

import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.media import Sample, Video
from mmalign.resources import resource
from mmalign.rewards.cards import load_reward
from mmalign.rewards.clip_video import VideoClipReward
from mmalign.rewards.temporal_head import TemporalHead
from mmalign.worlds import moving_shapes

NAME = "embedded/shapes-video-clip"
B, T, D = 2, 5, 12


@cache
def reward() -> VideoClipReward:
    loaded = load_reward(NAME)
    assert isinstance(loaded, VideoClipReward)
    return loaded


def head() -> TemporalHead:
    torch.manual_seed(0)
    return TemporalHead(frames=T, width=D, heads=3, layers=2).eval()


def frames() -> torch.Tensor:
    return torch.randn(B, T, D, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_the_head_sees_the_order_of_frames() -> None:
    module, vectors = head(), frames()
    assert (module(vectors) - module(vectors.flip(1))).abs().max() > 1e-2
    module.position.zero_()
    assert (module(vectors) - module(vectors.flip(1))).abs().max() > 1e-2  # by differences alone
    module.difference.weight.zero_()
    assert_close(module(vectors), module(vectors.flip(1)))  # and by nothing else


@torch.no_grad()
def test_a_head_that_adds_nothing_is_the_mean_of_frames_of_length_1() -> None:
    module, vectors = head(), frames()
    for layer in module.transformer.layers:
        layer.self_attn.out_proj.weight.zero_()
        layer.self_attn.out_proj.bias.zero_()
        layer.linear2.weight.zero_()
        layer.linear2.bias.zero_()
    module.position.zero_()  # what is left of the transformer: its input
    module.difference.weight.zero_()
    assert_close(module(vectors), normalize(vectors, dim=-1).mean(1))


def test_a_head_is_read_back_from_its_tensors() -> None:
    module = head()
    again = TemporalHead.of_state(module.state_dict(), heads=3)
    again.load_state_dict(module.state_dict())
    assert_close(again.eval()(frames()), module(frames()))


def test_held_out_scenes_win_against_captions_with_one_wrong_attribute() -> None:
    random = torch.Generator().manual_seed(7)
    scenes = moving_shapes.all_scenes("heldout")
    media = moving_shapes.videos(scenes, random, side_px=32)
    right = scores(media, scenes)
    wrong = {
        "kind": dict(zip(moving_shapes.KINDS, reversed(moving_shapes.KINDS), strict=True)),
        "colour": dict(zip(moving_shapes.COLOURS, reversed(moving_shapes.COLOURS), strict=True)),
        "direction": {
            "up": "down",
            "down": "up",
            "to the left": "to the right",
            "to the right": "to the left",
        },
        "speed": {"slowly": "quickly", "quickly": "slowly"},
    }
    assert list(wrong) == list(moving_shapes.ATTRIBUTES)
    for name, other in wrong.items():
        changed = [replace(scene, **{name: other[getattr(scene, name)]}) for scene in scenes]
        assert (right > scores(media, changed)).float().mean() >= 0.9, name


def scores(media: list[Video], scenes: list[moving_shapes.MovingShape]) -> torch.Tensor:
    pairs = zip(scenes, media, strict=True)
    return reward().score([Sample(moving_shapes.caption(scene), video) for scene, video in pairs]).value


def test_a_video_played_backwards_moves_the_other_way() -> None:
    random = torch.Generator().manual_seed(8)
    scene = moving_shapes.MovingShape("circle", "red", "to the left", "quickly")
    (video,) = moving_shapes.videos([scene], random)
    turned = Video(video.frames.flip(0), video.fps)
    there, back = (
        moving_shapes.caption(replace(scene, direction=d)) for d in ("to the left", "to the right")
    )
    found = reward().score([Sample(p, v) for v in (video, turned) for p in (there, back)]).value
    assert found[0] > found[1]
    assert found[3] > found[2]


def test_the_frames_that_count_are_at_equal_distances() -> None:
    random = torch.Generator().manual_seed(9)
    (video,) = moving_shapes.videos([moving_shapes.random_scene(random)], random)
    kept = len(reward().head.position)
    assert len(video.frames) == 2 * kept - 1
    every_other = Video(video.frames[::2], video.fps / 2)
    between = video.frames.clone()
    between[1::2] = 0
    found = reward().score([Sample("a red star", v) for v in (video, every_other, Video(between, video.fps))])
    assert_close(found.value, found.value[:1].expand(3))


@pytest.mark.parametrize("shape", [(1, 9, 3, 32, 32), (2, 9, 1, 32, 32), (2, 3, 32, 32)])
def test_media_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"expected \[B, F, 3, H, W\] with B = 2"):
        reward().score_with_grad(torch.zeros(shape), [Sample("a red star")] * 2)


def test_a_head_with_a_tensor_missing_is_refused(tmp_path: Path) -> None:
    shutil.copytree(resource("assets") / NAME.removeprefix("embedded/"), tmp_path / "copy")
    path = tmp_path / "copy" / "temporal.safetensors"
    state = load_file(path)
    del state["transformer.layers.0.linear1.bias"]
    save_file(state, path)
    with pytest.raises(ConfigError, match=r"first: no transformer\.layers\.0\.linear1\.bias"):
        load_reward(NAME, weights=tmp_path / "copy")
