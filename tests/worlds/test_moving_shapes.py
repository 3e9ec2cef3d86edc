"""The moving shapes world keeps its own bars: its videos show what they say, and its judge sees what moves and how."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import interpolate

from mmalign.media import Sample, Video
from mmalign.rewards.cards import load_reward
from mmalign.worlds import moving_shapes, shapes
from mmalign.worlds.moving_shapes import (
    ATTRIBUTES,
    COLOURS,
    DIRECTIONS,
    FRAMES,
    KINDS,
    SPEEDS,
    MovingShape,
)

VALUES = {"kind": KINDS, "colour": tuple(COLOURS), "direction": tuple(DIRECTIONS), "speed": tuple(SPEEDS)}
SCENES = moving_shapes.all_scenes()
STAR = MovingShape("star", "red", "to the left", "quickly")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def overall(frames: torch.Tensor, scene: MovingShape) -> float:
    return float(moving_shapes.measure(frames[None], [scene])["overall"])


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    return moving_shapes.render(SCENES, generator(), side_px=32)


@pytest.fixture(scope="module")
def right(frames: torch.Tensor) -> dict[str, torch.Tensor]:
    return moving_shapes.measure(frames, SCENES)


@pytest.fixture(scope="module")
def star() -> torch.Tensor:
    return moving_shapes.render([STAR], generator(2))[0]


def test_a_rendered_scene_satisfies_its_own_caption(right: dict[str, torch.Tensor]) -> None:
    for name, values in right.items():
        assert values.shape == (len(SCENES),), name
        assert values.mean() >= 0.95, name
        assert values.min() >= 0, name
        assert values.max() <= 1, name


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_wrong_attribute_is_told_apart(
    name: str, frames: torch.Tensor, right: dict[str, torch.Tensor]
) -> None:
    random = generator(1)
    wrong_scenes = []
    for scene in SCENES:
        others = [value for value in VALUES[name] if value != getattr(scene, name)]
        value = others[int(torch.randint(len(others), (), generator=random))]
        wrong_scenes.append(replace(scene, **{name: value}))
    wrong = moving_shapes.measure(frames, wrong_scenes)
    assert (right["overall"] > wrong["overall"] + 0.1).float().mean() >= 0.98
    assert wrong[name].mean() < 0.1
    for other in set(ATTRIBUTES) - {name}:
        torch.testing.assert_close(wrong[other], right[other])


@pytest.mark.parametrize("kind", ["white noise", "blobs", "plain grey"])
def test_noise_satisfies_nothing(kind: str) -> None:
    scenes = moving_shapes.all_scenes("heldout")
    shape = (len(scenes), FRAMES, 3, 32, 32)
    noise = {
        "white noise": torch.rand(shape, generator=generator()),
        "blobs": interpolate(
            torch.rand(len(scenes) * FRAMES, 3, 5, 5, generator=generator()), size=32, mode="bicubic"
        )
        .clamp(0, 1)
        .reshape(shape),
        "plain grey": torch.full(shape, 0.5),
    }[kind]
    assert moving_shapes.measure(noise, scenes)["overall"].mean() <= 0.1


def test_a_still_video_has_no_direction_and_no_speed(star: torch.Tensor) -> None:
    still = moving_shapes.measure(star[:1].expand_as(star)[None], [STAR])
    assert float(still["direction"]) == 0
    assert float(still["speed"]) == 0
    assert float(still["overall"]) == pytest.approx(0.5, abs=0.02)
    single = moving_shapes.measure(star[None, :1], [STAR])
    assert float(single["overall"]) == pytest.approx(0.5, abs=0.02)


def test_backwards_is_the_other_direction_at_the_same_speed(star: torch.Tensor) -> None:
    back = moving_shapes.measure(star.flip(0)[None], [STAR])
    assert float(back["direction"]) == 0
    assert float(back["speed"]) == 1
    assert overall(star.flip(0), replace(STAR, direction="to the right")) > 0.95


@pytest.mark.parametrize("fault", ["frames out of order", "one frame missing", "a jump", "one other colour"])
def test_a_fault_of_motion_or_of_one_frame_costs(fault: str, star: torch.Tensor) -> None:
    faulty = star.clone()
    if fault == "frames out of order":
        faulty = star[[0, 5, 2, 7, 4, 1, 6, 3, 8]]
    elif fault == "one frame missing":
        faulty[4] = star[0, :, 0, 0].max()
    elif fault == "a jump":
        faulty[4:] = star[4:].roll(12, dims=-2)
    else:
        faulty[4] = star[4].flip(0)
    assert overall(faulty, STAR) < overall(star, STAR) - 0.02
    assert overall(faulty, STAR) < {"one other colour": 0.99}.get(fault, 0.7)


def test_frames_are_judged_as_the_shapes_world_draws_them() -> None:
    # The shapes world draws from corners, this one from stencils: both agree on what a kind is.
    scenes = [(shapes.Shape(kind, "blue", "large", "in the center"),) for kind in KINDS]
    stills = shapes.render(scenes, generator())[:, None]
    measured = moving_shapes.measure(stills, [MovingShape(kind, "blue", "up", "slowly") for kind in KINDS])
    for name in ("presence", "kind", "colour"):
        assert measured[name].min() > 0.9, name


@pytest.mark.parametrize("length", [5, 17])
def test_the_number_of_frames_changes_nothing(length: int) -> None:
    short = moving_shapes.render(SCENES[:24], generator(4), frames=length, side_px=32)
    assert moving_shapes.measure(short, SCENES[:24])["overall"].mean() >= 0.95


def test_the_shape_stays_inside_the_picture(frames: torch.Tensor) -> None:
    edge = torch.cat([frames[..., 0, :], frames[..., -1, :], frames[..., 0], frames[..., -1]], -1)
    # A video's border has one grey, but for the soft edge of the widest triangle.
    assert (edge.amax((1, 2, 3)) - edge.amin((1, 2, 3))).max() < 0.05


def test_a_video_is_judged_alone(frames: torch.Tensor) -> None:
    some = [0, 50, 191]
    together = moving_shapes.measure(frames[some], [SCENES[i] for i in some])
    for row, i in enumerate(some):
        alone = moving_shapes.measure(frames[i : i + 1], [SCENES[i]])
        for name, values in together.items():
            torch.testing.assert_close(values[row : row + 1], alone[name], atol=1e-5, rtol=0, msg=name)


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_both_sides_of_the_split_have_every_value(split: shapes.Split) -> None:
    side = moving_shapes.all_scenes(split)
    for name, values in VALUES.items():
        assert {getattr(scene, name) for scene in side} == set(values)


def test_the_split_leaves_nothing_out_and_nothing_twice() -> None:
    train, heldout = moving_shapes.all_scenes("train"), moving_shapes.all_scenes("heldout")
    assert len(set(train + heldout)) == len(train) + len(heldout) == len(SCENES) == 4 * len(heldout)


@pytest.mark.parametrize("template", range(len(moving_shapes.TEMPLATES)))
def test_a_caption_reads_back_as_its_scene(template: int) -> None:
    assert [moving_shapes.parse(moving_shapes.caption(scene, template)) for scene in SCENES] == SCENES


@pytest.mark.parametrize(
    "text",
    ["", "a red star", "a red star moving up", "a star moving up slowly", "a red blue star moving up slowly"],
)
def test_text_that_lacks_an_attribute_or_names_it_twice_is_no_scene(text: str) -> None:
    assert moving_shapes.parse(text) is None


def test_rendering_is_repeated_by_its_seed() -> None:
    assert torch.equal(moving_shapes.render([STAR], generator(3)), moving_shapes.render([STAR], generator(3)))
    assert not torch.equal(
        moving_shapes.render([STAR], generator(3)), moving_shapes.render([STAR], generator(4))
    )


@pytest.mark.parametrize("noise", [0.0, 0.4, 1.0])
def test_caption_noise_is_as_large_as_it_says(noise: float) -> None:
    said = [
        moving_shapes.parse(text)
        for text in moving_shapes.noisy_captions(SCENES * 2, generator(5), noise=noise)
    ]
    for name, values in VALUES.items():
        kept = sum(
            getattr(scene, name) == getattr(other, name)
            for scene, other in zip(SCENES * 2, said, strict=True)
        ) / len(said)
        assert kept == pytest.approx(1 - noise * (1 - 1 / len(values)), abs=0.08)


def test_the_reward_is_the_worlds_own_measure_with_a_reason_where_there_is_none(star: torch.Tensor) -> None:
    video, text = Video(star, 8.0), moving_shapes.caption(STAR)
    larger = Video(interpolate(star, size=96, mode="bilinear"), 25.0)
    score = load_reward("shapes-video-truth").score(
        [
            Sample(text, video),
            Sample("a horse", video),
            Sample(text, Video(star[..., :48], 8.0)),
            Sample(text, Video(star[:5], 8.0)),
            Sample(text, larger),
        ]
    )
    assert score.status == [
        "ok",
        "the prompt names no moving shape of this world",
        "the video is 48x64, not square",
        "ok",
        "ok",
    ]
    measured = moving_shapes.measure(star[None], [STAR])
    torch.testing.assert_close(score.value[:1], measured["overall"])
    for name, values in score.aspects.items():
        torch.testing.assert_close(values[:1], measured[name])
    assert float(score.value[3]) < float(score.value[0])  # half the way is no quick shape
    assert float(score.value[4]) == pytest.approx(float(score.value[0]), abs=0.03)
