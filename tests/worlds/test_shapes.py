"""The shapes world keeps its own bars: what it draws is what it says, and its judge sees the difference."""

from dataclasses import replace

import pytest
import torch

from mmalign.worlds import shapes
from mmalign.worlds.shapes import ATTRIBUTES, COLOURS, KINDS, OPPOSITES, PLACES, SIZES, Scene, Shape

VALUES = {"kind": KINDS, "colour": tuple(COLOURS), "size": tuple(SIZES), "place": tuple(PLACES)}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two_shape_scenes(count: int) -> list[Scene]:
    random = generator(7)
    return [shapes.random_scene(random, split=None, two_shapes=1.0) for _ in range(count)]


def wrong_scenes(scene: Scene) -> list[Scene]:
    """Every scene with one other value; the places of two shapes are what makes the scene, and stay."""
    return [
        (*scene[:position], replace(shape, **{name: value}), *scene[position + 1 :])
        for position, shape in enumerate(scene)
        for name in ATTRIBUTES
        for value in VALUES[name]
        if value != getattr(shape, name) and (len(scene) == 1 or name != "place")
    ]


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [(shape,) for shape in shapes.all_shapes()] + two_shape_scenes(100)


@pytest.fixture(scope="module")
def pictures(scenes: list[Scene]) -> torch.Tensor:
    return shapes.render(scenes, generator())


def test_a_rendered_scene_satisfies_its_own_caption(scenes: list[Scene], pictures: torch.Tensor) -> None:
    measured = shapes.measure(pictures, scenes)
    assert measured["overall"].mean() >= 0.95
    for name, values in measured.items():
        assert values.shape == (len(scenes),), name
        assert values.min() >= 0, name
        assert values.max() <= 1, name


def test_a_wrong_attribute_is_told_apart(scenes: list[Scene], pictures: torch.Tensor) -> None:
    right = shapes.measure(pictures, scenes)["overall"]
    random = generator(1)
    options = [wrong_scenes(scene) for scene in scenes]
    wrong = [some[int(torch.randint(len(some), (), generator=random))] for some in options]
    assert (right > shapes.measure(pictures, wrong)["overall"]).float().mean() >= 0.98


@pytest.mark.parametrize("kind", ["white noise", "blobs", "plain grey"])
def test_noise_satisfies_nothing(kind: str) -> None:
    count = 108
    scenes: list[Scene] = [(shape,) for shape in shapes.all_shapes("heldout")]
    noise = {
        "white noise": torch.rand(count, 3, 64, 64, generator=generator()),
        "blobs": torch.nn.functional.interpolate(
            torch.rand(count, 3, 5, 5, generator=generator()), size=64, mode="bicubic"
        ).clamp(0, 1),
        "plain grey": torch.full((count, 3, 64, 64), 0.5),
    }[kind]
    assert shapes.measure(noise, scenes)["overall"].mean() <= 0.1


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_both_sides_of_the_split_have_every_value(split: shapes.Split) -> None:
    side = shapes.all_shapes(split)
    for name, values in VALUES.items():
        assert {getattr(shape, name) for shape in side} == set(values)


def test_the_split_leaves_nothing_out_and_nothing_twice() -> None:
    train, heldout = shapes.all_shapes("train"), shapes.all_shapes("heldout")
    assert sorted(map(repr, train + heldout)) == sorted(map(repr, shapes.all_shapes()))
    assert len(set(train + heldout)) == len(KINDS) * len(COLOURS) * len(SIZES) * len(PLACES)


@pytest.mark.parametrize("template", range(len(shapes.TEMPLATES)))
def test_a_caption_reads_back_as_its_scene(template: int) -> None:
    scenes: list[Scene] = [(shape,) for shape in shapes.all_shapes()] + two_shape_scenes(200)
    assert [shapes.parse(shapes.caption(scene, template)) for scene in scenes] == scenes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a horse",
        "a red circle",
        "a small circle on the left",
        "a small red circle",
        "a small red blue circle on the left",
        "a small red circle and a small blue star on the left",
        "a small red circle on the left and a star",
    ],
)
def test_text_that_lacks_an_attribute_or_names_it_twice_is_no_scene(text: str) -> None:
    assert shapes.parse(text) is None


def test_a_picture_is_judged_alone() -> None:
    scenes = [(Shape("star", "red", "large", "on the left"),), *two_shape_scenes(3)]
    pictures = shapes.render(scenes, generator())
    together = shapes.measure(pictures, scenes)
    for i, scene in enumerate(scenes):
        alone = shapes.measure(pictures[i : i + 1], [scene])
        for name, values in together.items():
            torch.testing.assert_close(values[i : i + 1], alone[name], atol=1e-6, rtol=0)


def test_rendering_is_repeated_by_its_seed() -> None:
    scenes = two_shape_scenes(2)
    assert torch.equal(shapes.render(scenes, generator(3)), shapes.render(scenes, generator(3)))
    assert not torch.equal(shapes.render(scenes, generator(3)), shapes.render(scenes, generator(4)))


def test_two_shapes_stand_on_opposite_sides() -> None:
    assert {tuple(shape.place for shape in scene) for scene in two_shape_scenes(50)} == set(OPPOSITES)


@pytest.mark.parametrize("noise", [0.0, 0.4, 1.0])
def test_caption_noise_is_as_large_as_it_says(noise: float) -> None:
    random = generator(5)
    scenes: list[Scene] = [(shape,) for shape in shapes.all_shapes()]
    said = [shapes.parse(text) for text in shapes.noisy_captions(scenes, random, noise=noise)]
    for name, values in VALUES.items():
        kept = sum(
            getattr(scene[0], name) == getattr(other[0], name)
            for scene, other in zip(scenes, said, strict=True)
            if other is not None
        ) / len(scenes)
        # Drawn anew from all values, so the old one comes back one time in len(values).
        assert kept == pytest.approx(1 - noise * (1 - 1 / len(values)), abs=0.08)
