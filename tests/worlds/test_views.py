"""The views world keeps its own bars: its views show what they say, and its judge sees views that do not match."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import interpolate

from mmalign.media import Camera, Sample, Scene3D
from mmalign.rewards.cards import load_reward
from mmalign.worlds import solids, views
from mmalign.worlds.shapes import COLOURS, Split
from mmalign.worlds.views import ATTRIBUTES, CAMERAS, KINDS, SIZES, Solid

VALUES = {"kind": KINDS, "colour": tuple(COLOURS), "size": tuple(SIZES)}
SOLIDS = views.all_solids() * 2
BRICK = Solid("brick", "red", "large")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def drawn() -> torch.Tensor:
    return views.render(SOLIDS, generator())


@pytest.fixture(scope="module")
def right(drawn: torch.Tensor) -> dict[str, torch.Tensor]:
    return views.measure(drawn, SOLIDS)


def one(drawn: torch.Tensor, solid: Solid) -> dict[str, float]:
    return {name: float(values) for name, values in views.measure(drawn[None], [solid]).items()}


def test_a_rendered_solid_satisfies_its_own_caption(right: dict[str, torch.Tensor]) -> None:
    for name, values in right.items():
        assert values.shape == (len(SOLIDS),), name
        assert values.mean() >= 0.95, name
        assert values.min() >= 0, name
        assert values.max() <= 1, name


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_wrong_attribute_is_told_apart(
    name: str, drawn: torch.Tensor, right: dict[str, torch.Tensor]
) -> None:
    random = generator(1)
    wrong = []
    for solid in SOLIDS:
        others = [value for value in VALUES[name] if value != getattr(solid, name)]
        wrong.append(replace(solid, **{name: others[int(torch.randint(len(others), (), generator=random))]}))
    measured = views.measure(drawn, wrong)
    assert (right["overall"] > measured["overall"] + 0.1).float().mean() >= 0.98
    assert measured[name].mean() < 0.1
    for other in set(ATTRIBUTES) - {name}:
        torch.testing.assert_close(measured[other], right[other])


@pytest.mark.parametrize("kind", ["white noise", "blobs", "plain grey"])
def test_noise_satisfies_nothing(kind: str) -> None:
    count = len(views.all_solids())
    noise = {
        "white noise": torch.rand(count, 4, 3, 32, 32, generator=generator()),
        "blobs": interpolate(torch.rand(count * 4, 3, 5, 5, generator=generator()), size=32, mode="bicubic")
        .clamp(0, 1)
        .unflatten(0, (count, 4)),
        "plain grey": torch.full((count, 4, 3, 32, 32), 0.5),
    }[kind]
    assert views.measure(noise, views.all_solids())["overall"].mean() <= 0.1


def test_one_view_of_another_colour_or_height_is_inconsistent(drawn: torch.Tensor) -> None:
    other = drawn[0].clone()
    other[1] = drawn[0, 1].flip(0)
    assert one(other, SOLIDS[0])["consistency"] < 0.5
    raised = drawn[0].clone()
    raised[2] = raised[2].roll(-4, dims=-2)
    assert one(raised, SOLIDS[0])["consistency"] < 0.5
    assert one(drawn[0], SOLIDS[0])["consistency"] > 0.95


def test_views_that_no_one_body_casts_have_a_poor_hull() -> None:
    small, large = views.render([replace(BRICK, size="small"), BRICK], generator())
    mixed = torch.stack([large[0], small[1], large[2], small[3]])
    assert one(large, BRICK)["hull"] > 0.95
    assert one(mixed, BRICK)["hull"] < 0.6
    assert one(mixed, BRICK)["overall"] < one(large, BRICK)["overall"] - 0.2


def test_a_body_beside_the_axis_is_one_body_all_the_same() -> None:
    # Its silhouettes are in another place in each view; only the cameras' own geometry brings them together.
    sphere, place = torch.tensor([KINDS.index("sphere")]), torch.tensor([[0.30, 0.45, 0.10]])
    inside, _ = solids.trace(sphere, torch.tensor([0.25]), place, CAMERAS, side_px=32)
    assert float(views._hull_overlap(inside.float())) > 0.95
    # All views one further are that body turned; two of them exchanged are no body at all.
    assert float(views._hull_overlap(inside.float().roll(1, 1))) > 0.95
    assert float(views._hull_overlap(inside.float()[:, [2, 1, 0, 3]])) < 0.2
    # Opposite views are mirrored about the axis: 0.12 to the right here, 0.12 to the left there.
    seen, _ = solids.trace(
        sphere, torch.tensor([0.36]), torch.tensor([[0.0, 0.12, 0.0]]), CAMERAS, side_px=64
    )
    red = torch.tensor(COLOURS["red"])[:, None, None]
    painted = torch.where(seen[0, :, None], red, torch.full((), 0.9))
    assert one(painted, Solid("sphere", "red", "small"))["consistency"] > 0.95


def test_views_in_another_order_are_another_body() -> None:
    brick = views.render([BRICK], generator())[0]
    assert one(brick.roll(1, 0), BRICK)["kind"] < 0.1  # narrow sides where the broad ones were
    assert one(brick.roll(2, 0), BRICK)["kind"] > 0.9  # half a turn shows the same


def test_opposite_views_have_mirrored_silhouettes(drawn: torch.Tensor) -> None:
    # A camera right behind sees the mirror image; from above, the vertical places differ, the widths do not.
    widths = (drawn - drawn[..., :1, :1]).abs().sum(2).amax(-2) > 0.3
    assert (widths[:, 0] == widths[:, 2].flip(-1)).float().mean() > 0.98


def test_the_scale_is_the_radius_of_the_sphere_of_the_same_volume() -> None:
    # Seen from the side, all silhouettes of a sphere are discs of its radius; other volumes are checked by formulas.
    radius, side = 0.6, 200
    inside, _ = solids.trace(
        torch.tensor([KINDS.index("sphere")]),
        torch.tensor([radius]),
        torch.zeros(1, 3),
        CAMERAS,
        side_px=side,
    )
    area = inside.float().mean((-2, -1)) * 4
    torch.testing.assert_close(area, torch.full_like(area, math.pi * radius**2), rtol=0.01, atol=0)
    volumes = {
        "cube": 8 * math.prod(solids.SOLIDS["cube"][0]),
        "brick": 8 * math.prod(solids.SOLIDS["brick"][0]),
        "cylinder": math.pi * 0.8**2 * 2 * solids.SOLIDS["cylinder"][0][2],
        "cone": math.pi * 1.2**2 * 2 * solids.SOLIDS["cone"][0][2] / 3,
    }
    assert volumes == pytest.approx(dict.fromkeys(volumes, 4 * math.pi / 3), rel=0.003)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_ray_meets_is_what_the_definition_holds(kind: str) -> None:
    # March along each ray and ask of each point whether it is inside, by the solid's own inequalities.
    camera, side = Camera(40.0, 35.0, 2.0, 0.0), 24
    inside, lit = solids.trace(
        torch.tensor([KINDS.index(kind)]), torch.tensor([0.5]), torch.zeros(1, 3), [camera], side_px=side
    )
    axis, depth = (torch.arange(side) + 0.5) * 2 / side - 1, torch.linspace(-1, 1, 800)
    y, x, z = torch.meshgrid(axis, axis, depth, indexing="ij")
    points = torch.stack([x, y, z], -1) @ camera.world_to_camera()[:3, :3] / 0.5
    angle = math.radians(solids.YAW_DEG)
    u = math.cos(angle) * points[..., 0] + math.sin(angle) * points[..., 1]
    v = -math.sin(angle) * points[..., 0] + math.cos(angle) * points[..., 1]
    w, (a, b, c) = points[..., 2], solids.SOLIDS[kind][0]
    held = {
        "cube": (u.abs() < a) & (v.abs() < b) & (w.abs() < c),
        "brick": (u.abs() < a) & (v.abs() < b) & (w.abs() < c),
        "sphere": u**2 + v**2 + w**2 < 1,
        "cylinder": (u**2 + v**2 < 0.64) & (w.abs() < c),
        "cone": (u**2 + v**2 < (0.6 * (1 - w / c)) ** 2) & (w.abs() < c),
    }[kind].any(-1)
    assert (inside[0, 0] == held).float().mean() > 0.99
    assert 0.05 < float(held.float().mean()) < 0.6
    assert float(lit.min()) >= 0
    assert float(lit.max()) <= 1 + 1e-5


def test_a_grid_is_its_views(drawn: torch.Tensor) -> None:
    grid = views.to_grid(drawn)
    assert grid.shape == (len(SOLIDS), 3, 64, 64)
    assert torch.equal(views.from_grid(grid), drawn)
    assert torch.equal(grid[0, :, :32, 32:], drawn[0, 1])


def test_a_scene_is_judged_alone(drawn: torch.Tensor) -> None:
    some = [0, 25, 59]
    together = views.measure(drawn[some], [SOLIDS[i] for i in some])
    for row, i in enumerate(some):
        for name, values in views.measure(drawn[i : i + 1], [SOLIDS[i]]).items():
            torch.testing.assert_close(values, together[name][row : row + 1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_both_sides_of_the_split_have_every_value(split: Split) -> None:
    side = views.all_solids(split)
    for name, values in VALUES.items():
        assert {getattr(solid, name) for solid in side} == set(values)


def test_the_split_leaves_nothing_out_and_nothing_twice() -> None:
    train, heldout = views.all_solids("train"), views.all_solids("heldout")
    assert len(set(train + heldout)) == len(train) + len(heldout) == 60
    assert len(heldout) == 15


@pytest.mark.parametrize("template", range(len(views.TEMPLATES)))
def test_a_caption_reads_back_as_its_solid(template: int) -> None:
    assert [views.parse(views.caption(solid, template)) for solid in SOLIDS] == SOLIDS


@pytest.mark.parametrize("text", ["", "a red cone", "a small cone", "a small red", "a small large red cone"])
def test_text_that_lacks_an_attribute_or_names_it_twice_is_no_solid(text: str) -> None:
    assert views.parse(text) is None


def test_rendering_is_repeated_by_its_seed() -> None:
    assert torch.equal(views.render([BRICK], generator(3)), views.render([BRICK], generator(3)))
    assert not torch.equal(views.render([BRICK], generator(3)), views.render([BRICK], generator(4)))


@pytest.mark.parametrize("noise", [0.0, 0.4, 1.0])
def test_caption_noise_is_as_large_as_it_says(noise: float) -> None:
    many = SOLIDS * 4
    said = [views.parse(text) for text in views.noisy_captions(many, generator(5), noise=noise)]
    for name, values in VALUES.items():
        kept = sum(getattr(a, name) == getattr(b, name) for a, b in zip(many, said, strict=True)) / len(many)
        assert kept == pytest.approx(1 - noise * (1 - 1 / len(values)), abs=0.08)


def test_the_reward_is_the_worlds_own_measure_with_a_reason_where_there_is_none() -> None:
    brick, text = views.render([BRICK], generator())[0], views.caption(BRICK)
    larger = Scene3D(interpolate(brick, size=64, mode="bilinear"), CAMERAS)
    score = load_reward("shapes-views-truth").score(
        [
            Sample(text, Scene3D(brick)),
            Sample("a horse", Scene3D(brick)),
            Sample(text, Scene3D(brick[:2])),
            Sample(text, Scene3D(brick[..., :16])),
            Sample(text, larger),
        ]
    )
    assert score.status == [
        "ok",
        "the prompt names no solid of this world",
        "the scene has 2 views, and this world has 4",
        "the view is 16x32, not square",
        "ok",
    ]
    torch.testing.assert_close(score.value[:1], views.measure(brick[None], [BRICK])["overall"])
    assert float(score.value[4]) == pytest.approx(float(score.value[0]), abs=0.03)
