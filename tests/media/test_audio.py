"""Sounds come in whole, at their rate and with their channels, or with a sentence that says what is wrong."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mmalign.errors import ConfigError, DataError, NonFiniteError, ShapeError
from mmalign.media import Audio, Speech

RATE = 16_000
SUFFIXES = ["wav", "flac", "ogg", "mp3"]


def tone(pitch_hz: float, *, rate: int = RATE, samples: int = 4_001) -> torch.Tensor:
    return 0.4 * torch.sin(2 * torch.pi * pitch_hz * torch.arange(samples) / rate)


STEREO = Audio(torch.stack([tone(440), 0.5 * tone(1000)]), RATE)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_another_reader_hears_the_same_channels(tmp_path: Path, suffix: str) -> None:
    STEREO.save(tmp_path / f"a.{suffix}")
    heard, rate = soundfile.read(tmp_path / f"a.{suffix}", dtype="float32", always_2d=True)
    assert rate == RATE
    assert heard.shape == (4_001, 2)
    error = np.abs(heard.T - STEREO.waveform.numpy()).max()
    assert error <= (0.5 / 32768 + 1e-7 if suffix in ("wav", "flac") else 0.03)


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [*((suffix, None) for suffix in SUFFIXES), ("wav", "PCM_24"), ("wav", "FLOAT"), ("flac", "PCM_24")],
)
def test_what_another_writer_wrote_is_read(tmp_path: Path, suffix: str, subtype: str | None) -> None:
    soundfile.write(tmp_path / f"a.{suffix}", STEREO.waveform.T.numpy(), RATE, subtype)
    sound = Audio.load(tmp_path / f"a.{suffix}")
    assert (sound.sample_rate_hz, tuple(sound.waveform.shape)) == (RATE, (2, 4_001))
    torch.testing.assert_close(
        sound.waveform, STEREO.waveform, atol=1e-4 if suffix in ("wav", "flac") else 0.03, rtol=0
    )


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_saving_what_was_loaded_changes_no_bit(tmp_path: Path, suffix: str) -> None:
    every = torch.arange(-32768, 32768) / 32768
    Audio(every[None], RATE).save(tmp_path / f"a.{suffix}")
    assert soundfile.info(tmp_path / f"a.{suffix}").subtype == "PCM_16"
    once = Audio.load(tmp_path / f"a.{suffix}")
    assert torch.equal(once.waveform[0], every)
    once.save(tmp_path / f"b.{suffix}")
    assert torch.equal(Audio.load(tmp_path / f"b.{suffix}").waveform, once.waveform)


def test_what_is_too_loud_is_cut_and_not_wrapped(tmp_path: Path) -> None:
    loud = Audio(torch.tensor([[-1.5, -1.0, 0.0, 1.0, 1.5]]), RATE)
    loud.save(tmp_path / "a.wav")
    stored, _ = soundfile.read(tmp_path / "a.wav", dtype="int16")
    assert stored.tolist() == [-32768, -32768, 0, 32767, 32767]
    soundfile.write(tmp_path / "b.wav", loud.waveform[0].numpy(), RATE, "FLOAT")
    assert Audio.load(tmp_path / "b.wav").waveform[0].tolist() == [-1.0, -1.0, 0.0, 1.0, 1.0]


def test_a_long_sound_is_written_in_blocks(tmp_path: Path) -> None:
    """Given at once, this length makes libsndfile's Vorbis encoder run out of stack."""
    long = Audio(torch.zeros(2, 3_000_000), 48_000)
    long.save(tmp_path / "a.ogg")
    assert Audio.load(tmp_path / "a.ogg").duration_s == 62.5


def test_a_rate_that_was_not_asked_for_is_refused_or_converted(tmp_path: Path) -> None:
    narrow = Audio(tone(440, rate=8_000)[None], 8_000)
    narrow.save(tmp_path / "a.wav")
    with pytest.raises(DataError, match=r"a\.wav: sample_rate_hz = 8000, but 16000 is wanted; resample=True"):
        Audio.load(tmp_path / "a.wav", sample_rate_hz=RATE)
    sound = Audio.load(tmp_path / "a.wav", sample_rate_hz=RATE, resample=True)
    assert (sound.sample_rate_hz, tuple(sound.waveform.shape)) == (RATE, (1, 8_002))
    inner = slice(200, -200)  # the filter sees silence beyond the ends
    expected = tone(440, samples=8_002)
    torch.testing.assert_close(sound.waveform[0, inner], expected[inner], atol=2e-3, rtol=0)


def test_channels_and_length_are_refused_with_both_numbers() -> None:
    assert STEREO.at(RATE, channels=2, samples=4_001) is STEREO
    with pytest.raises(ConfigError, match="has 2 channels, but 1 are wanted"):
        STEREO.at(RATE, channels=1)
    with pytest.raises(ConfigError, match="has 4001 samples at 16000 Hz, but 4000 are wanted"):
        STEREO.at(RATE, samples=4_000)
    assert torch.equal(STEREO.mono().at(RATE, channels=1).waveform, STEREO.waveform.mean(0, keepdim=True))


def test_rates_that_share_nothing_are_refused_before_memory_is_filled() -> None:
    with pytest.raises(ConfigError, match="44101 Hz cannot become 48000 Hz with a filter of moderate size"):
        Audio(torch.zeros(1, 100), 44_101).resampled(48_000)


def test_resampling_keeps_what_speech_knows_and_its_gradient() -> None:
    waveform = tone(300)[None].requires_grad_()
    speech = Speech(waveform, RATE, transcript="turn left", voice="en-us").resampled(8_000)
    assert (speech.transcript, speech.voice, speech.sample_rate_hz) == ("turn left", "en-us", 8_000)
    speech.waveform.square().sum().backward()
    assert waveform.grad is not None
    assert waveform.grad.abs().max() > 0


def test_speech_is_sound_that_is_loaded_as_speech(tmp_path: Path) -> None:
    Speech(tone(300)[None], RATE, "turn left").save(tmp_path / "a.wav")
    loaded = Speech.load(tmp_path / "a.wav")
    assert isinstance(loaded, Speech)
    assert isinstance(loaded, Audio)
    assert (loaded.modality, loaded.transcript) == ("speech", None)


@pytest.mark.parametrize("shape", [(16,), (1, 2, 16), (0, 16), (1, 0), (16_000, 2)])
def test_waveforms_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"waveform: expected \[C, N\]"):
        Audio(torch.zeros(shape), RATE)


@pytest.mark.parametrize("rate", [0, -1, 16_000.0])
def test_a_rate_is_a_positive_whole_number(rate: int) -> None:
    with pytest.raises(ConfigError, match="expected a positive whole number"):
        Audio(torch.zeros(1, 4), rate)


def test_a_waveform_in_another_unit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match=r"expected values in \[-1, 1\], got -13107 to 13107"):
        Audio(torch.tensor([[-13107.0, 13107.0]]), RATE)
    soundfile.write(tmp_path / "a.wav", np.array([0.0, 13107.0]), RATE, "FLOAT")
    with pytest.raises(DataError, match=r"a\.wav: waveform: expected values in \[-1, 1\], got 0 to 13107"):
        Audio.load(tmp_path / "a.wav")


def test_a_file_with_nan_in_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="waveform: 1 of 2 values"):
        Audio(torch.tensor([[0.0, torch.nan]]), RATE)
    soundfile.write(tmp_path / "a.wav", np.array([0.0, np.nan, 0.5]), RATE, "FLOAT")
    with pytest.raises(DataError, match=r"a\.wav: waveform: 1 of 3 values are NaN or infinite"):
        Audio.load(tmp_path / "a.wav")


def test_an_empty_sound_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((0, 1)), RATE)
    with pytest.raises(DataError, match=r"a\.wav: the sound is empty"):
        Audio.load(tmp_path / "a.wav")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_sound_that_ends_too_early_is_not_heard_in_part(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"a.{suffix}"
    STEREO.save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(DataError, match=r"ends too early|not a readable sound"):
        Audio.load(path)


def test_a_stream_that_never_knew_its_length_is_read_to_its_end(tmp_path: Path) -> None:
    STEREO.save(tmp_path / "a.wav")
    data = bytearray((tmp_path / "a.wav").read_bytes())
    at = data.index(b"data") + 4
    data[4:8] = data[at : at + 4] = struct.pack("<I", 0xFFFFFFFF)
    (tmp_path / "b.wav").write_bytes(data)
    assert torch.equal(Audio.load(tmp_path / "b.wav").waveform, Audio.load(tmp_path / "a.wav").waveform)


def test_a_sound_too_long_for_memory_is_refused_with_the_limit(tmp_path: Path) -> None:
    STEREO.save(tmp_path / "a.flac")
    with pytest.raises(
        DataError, match=r"at least 8,002 samples, the limit is 8,001; .* load it with max_samples="
    ):
        Audio.load(tmp_path / "a.flac", max_samples=8_001)
    assert Audio.load(tmp_path / "a.flac", max_samples=8_002).waveform.shape == (2, 4_001)


def test_the_suffix_may_be_wrong(tmp_path: Path) -> None:
    STEREO.save(tmp_path / "a.flac")
    (tmp_path / "a.flac").rename(tmp_path / "a.wav")
    assert Audio.load(tmp_path / "a.wav").waveform.shape == (2, 4_001)


@pytest.mark.parametrize(("channels", "rate"), [(3, 16_000), (1, 10_000)])
def test_what_a_format_cannot_hold_is_refused_and_nothing_is_left(
    tmp_path: Path, channels: int, rate: int
) -> None:
    with pytest.raises(ConfigError, match=rf"\.mp3 cannot hold {channels} channels at {rate} Hz .*use \.wav"):
        Audio(torch.zeros(channels, 100), rate).save(tmp_path / "a.mp3")
    with pytest.raises(ConfigError, match=r"a\.m4a: a sound is saved as \.wav, \.flac, \.ogg, \.mp3"):
        Audio(torch.zeros(channels, 100), rate).save(tmp_path / "a.m4a")
    assert not list(tmp_path.iterdir())
