"""Speech rewards on spoken sentences: clean above noisy, silence never, the right words and the right voice."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mmalign.media import Audio, Image, Media, Sample, Speech
from mmalign.rewards.cards import find_card, load_reward
from mmalign.rewards.dnsmos import dnsmos_polynomial, windows
from mmalign.rewards.speaker import RATE_HZ, SpeakerSimilarity, window_count
from mmalign.rewards.voice_activity import speech_probability, spoken_s
from mmalign.rewards.word_errors import WordErrorRate, dithered, wanted_words, word_error_rate
from mmalign.texts import words
from tests.rewards.espeak import spoken

COMMANDS = """#JSGF V1.0; grammar commands;
public <command> = (open | close | start | stop | take | drop) the (door | window | music | lamp | box | book);"""


def noisy(sound: Speech, noise_db: float) -> Speech:
    """With white noise this many decibels over the speech."""
    noise = torch.randn(sound.waveform.shape, generator=torch.Generator().manual_seed(0))
    mixed = sound.waveform + 10 ** (noise_db / 20) * sound.waveform.square().mean().sqrt() * noise
    return replace(sound, waveform=mixed / mixed.abs().max().clamp_min(1.0))


def no_speech() -> list[Audio]:
    """Silence, white noise, a tone and a click, 1.5 s each."""
    time = torch.arange(24_000) / 16_000
    click = torch.zeros(24_000)
    click[12_000:12_010] = 0.9
    noise = 0.3 * torch.randn(24_000, generator=torch.Generator().manual_seed(0))
    waves = [torch.zeros(24_000), noise, 0.5 * torch.sin(2 * torch.pi * 440 * time), click]
    return [Audio(wave[None], 16_000) for wave in waves]


def test_speech_is_found_where_it_is() -> None:
    pytest.importorskip("silero_vad", reason="the extra speech is not installed")
    sound = spoken("open the door", padding_s=1.0).resampled(16_000)
    probability = speech_probability(sound.waveform[0].numpy())
    assert probability[:25].max() < 0.5  # the first 0.8 s
    assert probability[-20:].max() < 0.5
    assert spoken_s(sound.waveform[0].numpy()) > 0.6
    for other in no_speech():
        assert spoken_s(other.waveform[0].numpy()) == 0


def test_looking_for_speech_leaves_the_threads_of_torch_alone() -> None:
    pytest.importorskip("silero_vad", reason="the extra speech is not installed")
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        spoken_s(np.zeros(16_000, dtype=np.float32))
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_raw_outputs_of_dnsmos_become_ratings_by_its_polynomials() -> None:
    assert dnsmos_polynomial(3.0, "overall") == pytest.approx(-0.06766283 * 9 + 1.11546468 * 3 + 0.04602535)


@pytest.mark.parametrize(
    ("seconds", "count"), [(0.5, 1), (4.0, 7), (9.01, 1), (10.5, 1), (11.0, 2), (12.0, 3)]
)
def test_short_sounds_are_doubled_and_long_ones_seen_in_windows(seconds: float, count: int) -> None:
    """4 s doubles to 16 s, which has trunc(16 - 9.01) + 1 = 7 windows; 0.5 s doubles to 16 s too."""
    sound = np.arange(int(seconds * 16_000), dtype=np.float32)
    found = windows(sound)
    count = 7 if seconds < 9 else count
    assert found.shape == (count, 144_160)
    assert found[0, 0] == 0
    assert found[-1, 0] == (16_000 * (count - 1)) % len(sound)


def test_clean_speech_sounds_better_than_noisy_and_silence_has_no_score() -> None:
    pytest.importorskip("speechmos", reason="the extra speech is not installed")
    clean = spoken("open the door").resampled(16_000)
    padded = replace(
        clean,
        waveform=torch.nn.functional.pad(clean.waveform, (0, 9 * 16_000 + 200 - clean.waveform.shape[1])),
    )
    sounds = [noisy(padded, level) for level in (-60.0, -15.0, 0.0)]
    score = load_reward("dnsmos-p835").score([Sample("", sound) for sound in (*sounds, *no_speech())])
    assert score.status[:3] == ["ok"] * 3
    assert score.value[0] > score.value[1] + 0.1
    assert score.value[1] > score.value[2] + 0.1
    assert set(score.status[3:]) == {"nobody speaks (0.00 s of speech, 0.25 s are needed)"}
    assert score.value[3:].isnan().all()
    assert 0 < score.aspects["speech"][0] < 0.3


@pytest.mark.parametrize(
    ("wanted", "heard", "rate"),
    [("a b c", "a x c d", 2 / 3), ("a b", "", 1.0), ("a", "b c d", 3.0), ("Don't stop!", "don’t, stop", 0.0)],
)
def test_word_error_rate_is_worked_by_hand(wanted: str, heard: str, rate: float) -> None:
    assert word_error_rate(wanted, heard) == pytest.approx(rate)


def test_punctuation_and_case_are_no_words() -> None:
    assert words(" Well -- 'tis: $5, isn't it?  ") == ["well", "tis", "five", "dollars", "isn't", "it"]
    assert words("... ! '") == []


def test_the_nearest_text_is_what_was_to_be_said() -> None:
    wave = torch.zeros(1, 9)
    own, none = Speech(wave, 8_000, transcript="own"), Speech(wave, 8_000)
    assert wanted_words(Sample("prompt", own, {"transcript": "context"})) == "context"
    assert wanted_words(Sample("prompt", own)) == "own"
    assert wanted_words(Sample("prompt", none)) == "prompt"
    assert wanted_words(Sample("prompt", Audio(wave, 8_000))) == "prompt"
    assert wanted_words(Sample(" ?!", none)) is None
    asked = "a low voice says 'own words'"
    assert wanted_words(Sample(asked, none)) == "own words"
    assert (
        wanted_words(Sample(asked, replace(none, transcript=asked))) == "own words"
    )  # as a generator gives it
    assert wanted_words(Sample(asked, own), own=False) == "own words"
    assert wanted_words(Sample(asked, own)) == "own"


def test_noise_is_added_25_db_under_the_speech_and_never_to_silence() -> None:
    wave = np.sin(np.arange(16_000, dtype=np.float32) * 0.1)
    added = dithered(wave) - 0.5 * wave
    level = 10 * np.log10(np.mean(added**2) / np.mean((0.5 * wave) ** 2))
    assert level == pytest.approx(-25.0, abs=0.3)
    assert_close(dithered(0.01 * wave), dithered(wave), atol=1e-5, rtol=0)
    assert not dithered(np.zeros(9, dtype=np.float32)).any()


def test_words_are_heard_in_clean_speech_and_lost_in_noise() -> None:
    pytest.importorskip("pocketsphinx", reason="the extra speech is not installed")
    reward = WordErrorRate(find_card("wer-pocketsphinx-v5"), grammar=COMMANDS)
    texts = ("stop the music", "open the door")
    clean = [Sample("", spoken(text)) for text in texts]
    wrong = Sample("", spoken("stop the music"), {"transcript": "open the door"})
    lost = Sample("", noisy(spoken("open the door"), 10.0))
    silence = Sample("open the door", Audio(torch.zeros(1, 16_000), 16_000))
    score = reward.score([*clean, wrong, lost, silence, Sample("", Audio(torch.zeros(1, 9), 8_000))])
    assert score.value.tolist()[:3] == [0.0, 0.0, pytest.approx(2 / 3)]
    assert score.value[3] > 0.5
    assert score.value[4] == 1.0
    assert score.status[5] == "no transcript: nothing says which words were to be said"
    assert score.text is not None
    assert score.text[:3] == ["stop the music", "open the door", "stop the music"]


@pytest.mark.slow
def test_the_recogniser_of_english_at_large_hears_a_plain_sentence() -> None:
    pytest.importorskip("pocketsphinx", reason="the extra speech is not installed")
    score = load_reward("wer-pocketsphinx-v5").score([Sample("", spoken("one two three four five"))])
    assert score.value.tolist() == [0.0]


@pytest.fixture(scope="module")
def speaker() -> SpeakerSimilarity:
    reward = load_reward("speaker-ge2e-v0.1.4")
    assert isinstance(reward, SpeakerSimilarity)
    return reward


def test_one_voice_is_nearer_to_itself_than_to_others_whatever_is_said(speaker: SpeakerSimilarity) -> None:
    voices = ("en-us", "en-us+f3", "en-us+m7")
    first = {voice: spoken("the quick brown fox jumps over the lazy dog", voice=voice) for voice in voices}
    second = {voice: spoken("stop the music and open the door", voice=voice) for voice in voices}
    for voice in voices:
        samples = [Sample("", second[voice], {"reference": first[other]}) for other in voices]
        value = speaker.score(samples).value
        assert int(value.argmax()) == voices.index(voice)


def test_volume_channels_and_rate_do_not_make_another_voice(speaker: SpeakerSimilarity) -> None:
    voice = spoken("open the door and stop the music").resampled(RATE_HZ)
    quiet = replace(voice, waveform=0.05 * voice.waveform)
    stereo = replace(voice, waveform=voice.waveform.expand(2, -1)).resampled(32_000)
    samples = [Sample("", sound, {"reference": voice}) for sound in (voice, quiet, stereo)]
    assert_close(speaker.score(samples).value, torch.ones(3), atol=2e-3, rtol=0)


def test_the_gradient_of_a_voice_is_that_of_finite_differences(speaker: SpeakerSimilarity) -> None:
    reference, sound = (
        spoken("open the door", voice=voice).resampled(RATE_HZ) for voice in ("en-us", "en-us+f3")
    )
    precise = deepcopy(speaker.encoder).double()
    wanted = precise(reference.waveform.double())
    waveform = sound.waveform.double().requires_grad_()
    (gradient,) = torch.autograd.grad((precise(waveform) * wanted).sum(), waveform)
    step = 1e-6 * waveform.detach().norm() * gradient / gradient.norm()
    with torch.no_grad():
        ahead, behind = ((precise(waveform + side * step) * wanted).sum() for side in (1, -1))
    assert_close((ahead - behind) / (2 * step.norm()), gradient.norm(), rtol=1e-3, atol=0)

    media = sound.waveform[None].clone().requires_grad_()
    value = speaker.score_with_grad(media, [Sample("", None, {"reference": reference})])
    (found,) = torch.autograd.grad(value.sum(), media)
    assert torch.cosine_similarity(found.flatten().double(), gradient.flatten(), dim=0) > 0.999
    assert all(not parameter.requires_grad for parameter in speaker.encoder.parameters())


def test_the_last_window_counts_where_it_is_three_quarters_full() -> None:
    assert [window_count(frames) for frames in (1, 160, 196, 197, 273, 274)] == [1, 1, 1, 2, 2, 3]


def test_what_has_no_voice_is_a_status(speaker: SpeakerSimilarity) -> None:
    voice, silence = spoken("open the door"), Audio(torch.zeros(1, 16_000), 16_000)
    cases: list[tuple[Audio, dict[str, Media | str], str]] = [
        (voice, {}, "no reference"),
        (silence, {"reference": voice}, "the sound is silent"),
        (voice, {"reference": silence}, "the reference is silent"),
        (voice, {"reference": Image(torch.zeros(3, 2, 2))}, "the reference is no sound"),
    ]
    score = speaker.score([Sample("", media, context) for media, context, _ in cases])
    assert score.status == [status for _, _, status in cases]
    assert score.value.isnan().all()
