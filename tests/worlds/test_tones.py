"""The tones world keeps its own bars: its sounds hold what they say, and its judge hears what, how often and when."""

from dataclasses import replace

import pytest
import torch

from mmalign.media import Audio, Sample
from mmalign.rewards.cards import load_reward
from mmalign.worlds import tones
from mmalign.worlds.tones import ATTRIBUTES, COUNTS, KINDS, PITCHES, Scene, Sound

VALUES = {"kind": KINDS, "pitch": tuple(PITCHES), "count": tuple(COUNTS)}
SCENES = tones.all_scenes()
PAIR: Scene = (Sound("tone", "low", "two"), Sound("noise", "high", "one"))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def wrong_scenes(scene: Scene, name: str) -> list[Scene]:
    """Every scene of the world with one other value, or the other order."""
    if name == "order":
        return [scene[::-1]] if len(scene) == 2 else []
    wrong = [
        (*scene[:i], replace(sound, **{name: value}), *scene[i + 1 :])
        for i, sound in enumerate(scene)
        for value in VALUES[name]
        if value != getattr(sound, name)
    ]
    return [other for other in wrong if other in SCENES]


@pytest.fixture(scope="module")
def waves() -> torch.Tensor:
    return tones.render(SCENES, generator())


@pytest.fixture(scope="module")
def right(waves: torch.Tensor) -> dict[str, torch.Tensor]:
    return tones.measure(waves, SCENES)


def test_a_rendered_scene_satisfies_its_own_caption(right: dict[str, torch.Tensor]) -> None:
    for name, values in right.items():
        assert values.shape == (len(SCENES),), name
        assert values.mean() >= 0.95, name
        assert values.min() >= 0, name
        assert values.max() <= 1, name


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_wrong_attribute_is_told_apart(
    name: str, waves: torch.Tensor, right: dict[str, torch.Tensor]
) -> None:
    random = generator(1)
    rows, wrong = [], []
    for row, scene in enumerate(SCENES):
        if options := wrong_scenes(scene, name):
            rows.append(row)
            wrong.append(options[int(torch.randint(len(options), (), generator=random))])
    measured = tones.measure(waves[rows], wrong)
    assert len(rows) >= 200
    assert (right["overall"][rows] > measured["overall"] + 0.05).float().mean() >= 0.98
    assert measured[name].mean() < right[name][rows].mean() - 0.2


@pytest.mark.parametrize("kind", ["white noise", "pulses of noise", "silence", "one long tone", "clicks"])
def test_noise_satisfies_nothing(kind: str) -> None:
    scenes = tones.all_scenes("heldout")
    shape = (len(scenes), tones.SAMPLES)
    time = torch.arange(tones.SAMPLES) / tones.SAMPLE_RATE_HZ
    white = 0.2 * torch.randn(shape, generator=generator())
    sound = {
        "white noise": white,
        "pulses of noise": white * (torch.remainder(time, 0.3) < 0.2),
        "silence": torch.zeros(shape),
        "one long tone": 0.5 * torch.sin(2 * torch.pi * 400 * time).expand(shape),
        "clicks": (torch.rand(shape, generator=generator()) < 0.0005).float(),
    }[kind]
    assert tones.measure(sound, scenes)["overall"].mean() <= 0.1


@pytest.mark.parametrize("noise_db", [-30.0, -25.0])
def test_a_little_noise_behind_the_sounds_costs_little(noise_db: float, waves: torch.Tensor) -> None:
    # Decoders and vocoders leave a floor; 0.3 is about the level of the sounds.
    floor = 0.3 * 10 ** (noise_db / 20) * torch.randn(waves.shape, generator=generator())
    assert tones.measure(waves + floor, SCENES)["overall"].mean() >= 0.9


def test_louder_and_later_change_nothing(waves: torch.Tensor) -> None:
    some, scenes = waves[::10], SCENES[::10]
    before = tones.measure(some, scenes)["overall"]
    for changed in (0.5 * some, some.roll(320, dims=-1), torch.nn.functional.pad(some, (8_000, 8_000))):
        torch.testing.assert_close(tones.measure(changed, scenes)["overall"], before, atol=0.02, rtol=0)


def test_backwards_a_rise_falls_and_the_last_comes_first() -> None:
    scene: Scene = (Sound("rising chirp", "high", "two"), Sound("tone", "low"))
    mirrored: Scene = (Sound("tone", "low"), Sound("falling chirp", "high", "two"))
    wave = tones.render([scene], generator()).flip(-1)
    assert float(tones.measure(wave, [mirrored])["overall"]) > 0.95
    assert float(tones.measure(wave, [scene])["overall"]) < 0.5


@pytest.mark.parametrize(("count", "expected"), [("one", 0.5), ("two", 1.0), ("three", 0.5)])
def test_one_sound_too_many_or_too_few_halves_the_count(count: str, expected: float) -> None:
    wave = tones.render([(Sound("tone", "high", "two"),)], generator())
    measured = tones.measure(wave, [(Sound("tone", "high", count),)])
    assert float(measured["count"]) == expected
    # One described sound: presence times the mean of kind, pitch and count, all but the last of them 1.
    assert float(measured["overall"]) == pytest.approx((2 + expected) / 3)


def test_a_sound_is_judged_alone(waves: torch.Tensor) -> None:
    some = [0, 100, 247]
    together = tones.measure(waves[some], [SCENES[i] for i in some])
    for row, i in enumerate(some):
        for name, values in tones.measure(waves[i : i + 1], [SCENES[i]]).items():
            torch.testing.assert_close(values, together[name][row : row + 1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_both_sides_of_the_split_have_every_value_in_each_place(split: tones.Split) -> None:
    pairs = [scene for scene in tones.all_scenes(split) if len(scene) == 2]
    for place in (0, 1):
        assert {scene[place].kind for scene in pairs} == set(KINDS)
        assert {scene[place].pitch for scene in pairs} == set(PITCHES)
        assert {scene[place].count for scene in pairs} == {"one", "two"}
    assert any(scene[0].count == "three" for scene in tones.all_scenes(split))


def test_the_split_leaves_nothing_out_and_nothing_twice() -> None:
    train, heldout = tones.all_scenes("train"), tones.all_scenes("heldout")
    assert len(set(train + heldout)) == len(train) + len(heldout) == len(SCENES)
    assert len(heldout) / len(SCENES) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("template", range(len(tones.ALONE_TEMPLATES)))
def test_a_caption_reads_back_as_its_scene(template: int) -> None:
    assert [tones.parse(tones.caption(scene, template)) for scene in SCENES] == SCENES


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a bang",
        "one tone",
        "low tones",
        "one low tone, then two low tones",
        "three low tones, then one high noise",
        "one low tone, then one high noise, then one low noise",
    ],
)
def test_text_that_is_no_scene_of_this_world_is_none(text: str) -> None:
    assert tones.parse(text) is None


def test_sounds_are_repeated_by_their_seed() -> None:
    assert torch.equal(tones.render([PAIR], generator(3)), tones.render([PAIR], generator(3)))
    assert not torch.equal(tones.render([PAIR], generator(3)), tones.render([PAIR], generator(4)))


@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_caption_noise_is_as_large_as_it_says(noise: float) -> None:
    alone = [scene for scene in SCENES if len(scene) == 1] * 12
    said = [tones.parse(text) for text in tones.noisy_captions(alone, generator(5), noise=noise)]
    for name, values in VALUES.items():
        kept = sum(
            getattr(a[0], name) == getattr(b[0], name) for a, b in zip(alone, said, strict=True) if b
        ) / len(alone)
        assert kept == pytest.approx(1 - noise * (1 - 1 / len(values)), abs=0.08)
    pairs = [scene for scene in SCENES if len(scene) == 2]
    assert None not in [tones.parse(text) for text in tones.noisy_captions(pairs, generator(5), noise=noise)]


def test_the_reward_is_the_worlds_own_measure_with_a_reason_where_there_is_none() -> None:
    wave, text = tones.render([PAIR], generator()), tones.caption(PAIR, 3)
    sound = Audio(wave, tones.SAMPLE_RATE_HZ)
    other_rate = Audio(sound.resampled(24_000).waveform.expand(2, -1), 24_000)
    score = load_reward("tones-truth").score(
        [
            Sample(text, sound),
            Sample("a horse", sound),
            Sample(text, other_rate),
            Sample(text, Audio(torch.zeros(1, 3), 16_000)),
            Sample(text, Audio(torch.zeros(1, 31_000), 1_000)),
        ]
    )
    assert score.status == [
        "ok",
        "the prompt names no sound of this world",
        "ok",
        "ok",
        "the sound is 31 s long, above 30 s",
    ]
    torch.testing.assert_close(score.value[:1], tones.measure(wave, [PAIR])["overall"])
    assert float(score.value[2]) == pytest.approx(float(score.value[0]), abs=0.02)
    assert float(score.value[3]) == 0
