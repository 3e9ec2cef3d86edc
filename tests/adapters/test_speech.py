"""The codec of speech, and its adapter: what a sound keeps on the way through tokens, and through a folder."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import ByT5Tokenizer

import mmalign
from mmalign.adapters.speech import SpeechAdapter
from mmalign.adapters.speech_codec import CodecSettings, SpeechCodec, k_means, log_mel
from mmalign.errors import ConfigError, ShapeError, UnknownNameError
from mmalign.generators.token_layouts import IGNORED
from mmalign.media import Audio, Speech
from tests.generators.small_token_models import CODES, END, FIRST, llama

RATE = 16_000
HOP = 400


def tones(*pitches_hz: float, seconds: float = 0.3) -> Speech:
    """One tone after another."""
    time = torch.arange(int(seconds * RATE)) / RATE
    parts = [0.5 * torch.sin(2 * math.pi * pitch * time) for pitch in pitches_hz]
    return Speech(torch.cat(parts)[None], RATE)


def strongest_hz(waveform: Tensor) -> float:
    """The frequency that has the most energy."""
    spectrum = torch.fft.rfft(waveform[0] * torch.hann_window(waveform.shape[1])).abs()
    return float(spectrum.argmax()) * RATE / waveform.shape[1]


@pytest.fixture(scope="module")
def codec() -> SpeechCodec:
    return SpeechCodec.fit([tones(440, 880, 1760, 3000)], codes=CODES, settings=CodecSettings(iterations=10))


@pytest.fixture(scope="module")
def adapter(codec: SpeechCodec) -> SpeechAdapter:
    return SpeechAdapter(llama(), ByT5Tokenizer(), codec, first_code=FIRST, end_id=END, frames=6)


def test_the_standard_frame_is_that_of_the_speech_worlds() -> None:
    settings = CodecSettings()
    assert (settings.bands, settings.frames_per_second, settings.iterations) == (64, 40, 60)
    assert settings.hop == HOP
    with pytest.raises(ConfigError, match="37 frames a second"):
        CodecSettings(frames_per_second=37)
    with pytest.raises(ConfigError, match="at most window = 100"):
        CodecSettings(window=100)


@pytest.mark.parametrize("pitch_hz", [440, 880, 1760, 3000])
def test_a_tone_keeps_its_pitch_and_length(pitch_hz: float, codec: SpeechCodec) -> None:
    sound = tones(pitch_hz)
    tokens = codec.encode(sound)
    assert tokens.shape == (sound.waveform.shape[1] // HOP + 1,)
    back = codec.decode(tokens)
    assert back.shape == (1, (len(tokens) - 1) * HOP) == sound.waveform.shape
    # Within the width of a mel band there.
    assert abs(strongest_hz(back) - pitch_hz) < 0.08 * pitch_hz
    assert 0.2 < float(back.abs().max()) <= 1


def test_frames_are_local_and_the_decoder_is_a_function(codec: SpeechCodec) -> None:
    first, second = codec.encode(tones(440, 880)), codec.encode(tones(440, 1760))
    assert (first[:10] == second[:10]).all()
    assert (first[16:] != second[16:]).any()
    assert (codec.decode(first) == codec.decode(first)).all()
    assert codec.decode(first[:1]).abs().max() == 0
    assert codec.decode(first[:0]).shape == (1, HOP)
    for count in (2, 3, 4):  # shorter than what Griffin-Lim mirrors
        assert codec.decode(first[:count]).shape == (1, (count - 1) * HOP)


def test_codes_stay_what_they_are() -> None:
    """A centroid is its own nearest frame, and a code that is none is refused."""
    centroids = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    codec = SpeechCodec(centroids)
    assert torch.cdist(codec.centroids, codec.centroids).argmin(1).tolist() == list(range(5))
    with pytest.raises(ConfigError, match="expected 0 to 4, got 0 to 5"):
        codec.decode(torch.tensor([0, 5]))
    with pytest.raises(ShapeError, match=r"expected \[V, 64\], got \[5, 3\]"):
        SpeechCodec(centroids[:, :3])
    with pytest.raises(ConfigError, match="16000 is wanted"):
        codec.encode(Audio(torch.zeros(1, 100), 8000))


def test_silence_and_loudness_are_as_measured() -> None:
    settings = CodecSettings()
    sound = tones(1000)
    quiet = Audio(sound.waveform / 10, RATE)
    loud, soft = log_mel(sound, settings), log_mel(quiet, settings)
    heard = loud > 0
    assert_close((loud - soft)[heard], torch.full_like(loud[heard], math.log(10)), atol=1e-3, rtol=0)
    assert (log_mel(Audio(torch.zeros(1, RATE), RATE), settings) == math.log(1e-5)).all()


def test_k_means_finds_clusters_and_refuses_too_few_frames() -> None:
    random = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = (centres[:, None] + 0.1 * torch.randn(3, 50, 2, generator=random)).flatten(0, 1)
    for seed in range(4):
        found = k_means(points, 3, seed=seed)
        error = torch.cdist(points, found).min(1).values.square().mean()
        if error < 1:  # Lloyd's algorithm may stop at a worse place, though never above it
            assert torch.cdist(centres, found).min(1).values.max() < 0.1
    assert_close(k_means(points, 3, seed=1), k_means(points, 3, seed=1))
    with pytest.raises(ConfigError, match="3 codes, but there are 2 different frames"):
        k_means(points[:2], 3, seed=0)


def test_the_adapter_speaks(adapter: SpeechAdapter, codec: SpeechCodec) -> None:
    spoken = adapter.generate(["go", "stop now"], seeds=[1, 2], temperature=0.9)
    assert [s.transcript for s in spoken] == ["go", "stop now"]
    assert all(type(s) is Speech and s.sample_rate_hz == RATE for s in spoken)
    alone = adapter.generate(["stop now"], seeds=[2], temperature=0.9)[0]
    assert_close(alone.waveform, spoken[1].waveform)
    one_by_one = adapter.generate(["go", "stop now"], seeds=[1, 2], temperature=0.9, batch_size=1)
    assert_close(one_by_one[0].waveform, spoken[0].waveform)
    tokens = adapter.encode([tones(440), tones(880, 440)])
    assert tokens.shape == (2, 2 * 4800 // HOP + 2, 1)
    assert tokens[0, 13, 0] == CODES  # the end, behind 13 frames
    assert (tokens[0, 14:] == IGNORED).all()
    first, second = adapter.decode(tokens)
    assert first.duration_s == 0.3
    assert second.duration_s == 0.6
    assert_close(first.waveform, codec.decode(tokens[0, :13, 0]))


def test_a_folder_brings_the_same_back(adapter: SpeechAdapter, tmp_path: Path) -> None:
    adapter.save(tmp_path)
    assert not list(tmp_path.rglob("*.bin")) + list(tmp_path.rglob("*.pt")) + list(tmp_path.rglob("*.pkl"))
    loaded = mmalign.load_adapter(str(tmp_path), device="cpu")
    assert type(loaded) is SpeechAdapter
    assert loaded.modality == "speech"
    prompts, seeds = ["go", "stop now"], [1, 2]
    for mine, theirs in zip(
        adapter.generate(prompts, seeds=seeds), loaded.generate(prompts, seeds=seeds), strict=True
    ):
        assert (mine.waveform == theirs.waveform).all()
    assert loaded.codec.settings == adapter.codec.settings
    assert mmalign.load_adapter(str(tmp_path), device="cpu", frames=2).frames == 2
    with pytest.raises(ConfigError, match="makes speech, and modality = 'image'"):
        mmalign.load_adapter(str(tmp_path), modality="image")
    with pytest.raises(ConfigError, match="not the settings of a speech model"):
        mmalign.load_adapter(str(tmp_path), device="cpu", height=64)
    settings = tmp_path / "speech.json"
    whole = settings.read_text()
    settings.write_text(whole.replace("SpeechAdapter", "SpechAdapter"))
    with pytest.raises(UnknownNameError, match="Did you mean 'SpeechAdapter'"):
        mmalign.load_adapter(str(tmp_path), device="cpu")
    settings.write_text(whole)
    (tmp_path / "codec" / "codec.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ConfigError, match="no speech codec that can be read"):
        mmalign.load_adapter(str(tmp_path), device="cpu")


def test_a_lora_has_a_folder_of_its_own(codec: SpeechCodec, tmp_path: Path) -> None:
    def fresh() -> SpeechAdapter:
        return SpeechAdapter(llama(), ByT5Tokenizer(), codec, first_code=FIRST, end_id=END, frames=6)

    trained, base = fresh(), fresh()
    trained.generator.attach_lora(rank=2)
    for parameter in trained.generator.model.parameters():
        if parameter.requires_grad:
            parameter.data.fill_(0.5)
    trained.save_lora(tmp_path)
    base.load_lora(str(tmp_path))
    conditioning = base.generator.condition(["go"])
    tokens = torch.tensor([[[1], [2]]])
    assert_close(base.generator.logits(tokens, conditioning), trained.generator.logits(tokens, conditioning))
    with pytest.raises(ConfigError, match="save_lora writes that"):
        trained.save(tmp_path)


def test_a_modality_that_the_folder_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no speech\.json here"):
        mmalign.load_adapter(str(tmp_path), modality="speech")
