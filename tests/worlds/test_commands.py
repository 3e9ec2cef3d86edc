"""The commands world keeps its own bars: eSpeak says what is asked, and the judges hear words and voice."""

from dataclasses import replace

import pytest
import torch

from mmalign.errors import ConfigError
from mmalign.media import Sample, Speech
from mmalign.rewards.cards import load_reward
from mmalign.worlds import commands
from mmalign.worlds.commands import OBJECTS, VERBS, VOICES, Command
from mmalign.worlds.espeak import Synthesiser
from mmalign.worlds.shapes import Split

VALUES = {"verb": VERBS, "object": OBJECTS, "voice": tuple(VOICES)}
ALL = commands.all_commands()
SPOKEN = commands.all_commands("heldout")
"""Each verb, object and voice, spoken; the recogniser takes its time."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def waves() -> torch.Tensor:
    return commands.render(SPOKEN, generator())


@pytest.fixture(scope="module")
def right(waves: torch.Tensor) -> dict[str, torch.Tensor]:
    return commands.measure(waves, SPOKEN)


def error_rate(waves: torch.Tensor, asked: list[Command]) -> float:
    rates = [
        commands.word_error_rate(commands.recognise(wave), command.text)
        for wave, command in zip(waves, asked, strict=True)
    ]
    return sum(rates) / len(rates)


def test_a_spoken_command_satisfies_its_own_prompt(right: dict[str, torch.Tensor]) -> None:
    for name, values in right.items():
        assert values.shape == (len(SPOKEN),), name
        assert values.mean() >= 0.95, name
        assert values.min() >= 0, name
        assert values.max() <= 1, name


def test_another_voice_is_told_apart(waves: torch.Tensor, right: dict[str, torch.Tensor]) -> None:
    random = generator(1)
    wrong = []
    for command in SPOKEN:
        others = [voice for voice in VOICES if voice != command.voice]
        voice = others[int(torch.randint(len(others), (), generator=random))]
        wrong.append(replace(command, voice=voice))
    measured = commands.measure(waves, wrong)
    assert (right["overall"] > measured["overall"] + 0.2).float().mean() >= 0.98
    assert measured["voice"].mean() < 0.05
    torch.testing.assert_close(measured["duration"], right["duration"])


def test_the_recogniser_hears_the_words_in_every_voice(waves: torch.Tensor) -> None:
    assert error_rate(waves, SPOKEN) <= 0.10
    # Every word but "the" is another one: two in three are wrong.
    other = [
        Command(VERBS[VERBS.index(c.verb) - 1], OBJECTS[OBJECTS.index(c.object) - 1], "low") for c in SPOKEN
    ]
    assert error_rate(waves[:12], other[:12]) >= 0.6


@pytest.mark.slow
def test_the_recogniser_hears_less_the_more_noise_there_is(waves: torch.Tensor) -> None:
    level = waves.square().mean(-1, keepdim=True).sqrt()
    noise = torch.randn(waves.shape, generator=generator())
    rates = [error_rate(waves + level * 10 ** (-db / 20) * noise, SPOKEN) for db in (20, 0, -10)]
    assert rates[0] <= 0.15
    assert rates[0] < rates[1] < rates[2]
    assert rates[2] >= 0.6


@pytest.mark.parametrize("kind", ["white noise", "silence", "a tone", "clicks"])
def test_what_is_no_speech_satisfies_nothing(kind: str) -> None:
    asked = SPOKEN[:8]
    shape = (len(asked), commands.SAMPLES)
    time = torch.arange(commands.SAMPLES) / commands.SAMPLE_RATE_HZ
    sound = {
        "white noise": 0.2 * torch.randn(shape, generator=generator()),
        "silence": torch.zeros(shape),
        "a tone": (0.3 * torch.sin(2 * torch.pi * 440 * time)).expand(shape),
        "clicks": (torch.rand(shape, generator=generator()) < 0.0005).float(),
    }[kind]
    # A steady tone is voiced throughout and long: only its words and its pitch give it away.
    assert commands.measure(sound, asked)["overall"].mean() <= (0.3 if kind == "a tone" else 0.1)
    assert error_rate(sound[:2], asked[:2]) == 1


@pytest.mark.parametrize("pitch_hz", [70.0, 110.0, 230.0, 400.0])
def test_the_period_of_a_known_sound_is_found(pitch_hz: float) -> None:
    time = torch.arange(commands.WINDOW) / commands.SAMPLE_RATE_HZ
    # The overtones are stronger than the ground note, as in many vowels.
    wave = sum(
        amplitude * torch.sin(2 * torch.pi * n * pitch_hz * time)
        for n, amplitude in ((1, 0.3), (2, 1), (3, 0.6))
    )
    assert isinstance(wave, torch.Tensor)
    period, likeness = commands._periods(wave[None, None])
    assert commands.SAMPLE_RATE_HZ / float(period) == pytest.approx(pitch_hz, rel=0.03)
    assert float(likeness) > 0.95


@pytest.mark.parametrize("fault", ["cut off", "stretched", "a pause inside", "no pause before"])
def test_a_fault_of_time_costs_its_aspect(fault: str, waves: torch.Tensor) -> None:
    some, asked = waves[:6], SPOKEN[:6]
    loud = some.abs() > 0.02
    first, last = loud.int().argmax(-1), commands.SAMPLES - 1 - loud.flip(-1).int().argmax(-1)
    faulty = []
    for wave, a, b in zip(some, first.tolist(), last.tolist(), strict=True):
        middle = (a + b) // 2
        faulty.append(
            {
                "cut off": torch.cat([wave[: a + 5_000], torch.zeros(8_000)]),
                "stretched": torch.cat([wave[:middle], wave[a:b], wave[middle:]]),
                "a pause inside": torch.cat([wave[:middle], torch.zeros(9_000), wave[middle:]]),
                "no pause before": wave[a + 200 :],
            }[fault]
        )
    aspect = "duration" if fault in ("cut off", "stretched") else "silence"
    for wave, command in zip(faulty, asked, strict=True):
        assert float(commands.measure(wave[None], [command])[aspect]) < 0.7


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_both_sides_of_the_split_have_every_value(split: Split) -> None:
    side = commands.all_commands(split)
    for name, values in VALUES.items():
        assert {getattr(command, name) for command in side} == set(values)


def test_the_split_leaves_nothing_out_and_nothing_twice() -> None:
    train = commands.all_commands("train")
    assert len(set(train + SPOKEN)) == len(train) + len(SPOKEN) == len(ALL) == 4 * len(SPOKEN)


@pytest.mark.parametrize("template", range(len(commands.TEMPLATES)))
def test_a_prompt_reads_back_as_its_command(template: int) -> None:
    assert [commands.parse(commands.caption(command, template)) for command in ALL] == ALL


@pytest.mark.parametrize(
    "text",
    [
        "",
        "open the window",
        "say 'open the door' in a high voice",
        "say 'open the window' in a high deep voice",
    ],
)
def test_text_that_asks_for_no_command_of_this_world_is_none(text: str) -> None:
    assert commands.parse(text) is None


def test_speech_is_repeated_by_its_seed() -> None:
    first = commands.render(SPOKEN[:2], generator(3))
    for seed in range(4):  # speech in between leaves memory behind, which eSpeak NG would read
        assert torch.equal(commands.render(SPOKEN[:2], generator(3)), first)
        commands.render(SPOKEN[2 : 3 + seed], generator(seed))
    assert not torch.equal(
        commands.render(SPOKEN[:2], generator(3)), commands.render(SPOKEN[:2], generator(4))
    )


def test_a_voice_that_espeak_does_not_know_is_refused() -> None:
    with pytest.raises(ConfigError, match="eSpeak NG has no voice 'nobody'"):
        Synthesiser().speak("hello", voice="nobody")


@pytest.mark.parametrize("noise", [0.0, 0.4, 1.0])
def test_caption_noise_is_as_large_as_it_says(noise: float) -> None:
    said = [commands.parse(text) for text in commands.noisy_captions(ALL * 2, generator(5), noise=noise)]
    for name, values in VALUES.items():
        kept = sum(getattr(a, name) == getattr(b, name) for a, b in zip(ALL * 2, said, strict=True)) / len(
            said
        )
        assert kept == pytest.approx(1 - noise * (1 - 1 / len(values)), abs=0.08)


def test_both_rewards_are_the_worlds_own_measures(waves: torch.Tensor) -> None:
    speech = Speech(waves[:1], commands.SAMPLE_RATE_HZ)
    wrong = replace(SPOKEN[0], verb=VERBS[VERBS.index(SPOKEN[0].verb) - 1])
    samples = [
        Sample(commands.caption(SPOKEN[0]), speech),
        Sample(commands.caption(wrong), speech),
        Sample("a horse", speech),
        Sample(commands.caption(SPOKEN[0]), speech.resampled(24_000)),
    ]
    status = ["ok", "ok", "the prompt names no command of this world", "ok"]
    truth, errors = (load_reward(name).score(samples) for name in ("commands-truth", "commands-wer"))
    assert truth.status == errors.status == status
    torch.testing.assert_close(truth.value[:1], commands.measure(waves[:1], SPOKEN[:1])["overall"])
    assert float(truth.value[1]) == float(truth.value[0])  # words are the other judge's business
    assert errors.value[[0, 1, 3]].tolist() == pytest.approx([0, 1 / 3, 0])
