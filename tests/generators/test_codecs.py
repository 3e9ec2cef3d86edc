"""Codecs piece by piece: packing against diffusers' own, spectrograms against transformers', media, and refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline, LTXPipeline
from torch.testing import assert_close
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from mmalign.errors import ConfigError, ShapeError, UnsupportedPipelineError
from mmalign.generators.codecs.media import media_of, modality_of
from mmalign.generators.codecs.mel import log_mel
from mmalign.generators.codecs.packing import Packing, possible_packings
from mmalign.generators.codecs.sound import SpectrogramCodec, WaveformCodec
from mmalign.generators.codecs.vae import VAELatents, latent_moments
from tests.generators.small_pipelines import vae
from tests.generators.small_sound_pipelines import audioldm2, stable_audio
from tests.generators.small_video_pipelines import ltx, wan_vae


def test_patches_of_a_picture_are_those_of_flux() -> None:
    latents = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    packing = Packing("patches", (4, 6), (2, 2))
    packed = FluxPipeline._pack_latents(latents, 2, 3, 4, 6)
    assert torch.equal(packing.pack(latents), packed)
    assert torch.equal(packing.unpack(packed), latents)


@pytest.mark.parametrize(("time", "side"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_patches_of_a_video_are_those_of_ltx(time: int, side: int) -> None:
    latents = torch.arange(2 * 3 * 2 * 4 * 6.0).reshape(2, 3, 2, 4, 6)
    packing = Packing("patches", (2, 4, 6), (time, side, side))
    packed = LTXPipeline._pack_latents(latents, side, time)
    assert torch.equal(packing.pack(latents), packed)
    assert torch.equal(packing.unpack(packed), latents)


def test_packings_are_found_by_shape() -> None:
    assert possible_packings((3, 4, 6), (3, 4, 6)) == [Packing("same", (4, 6))]
    assert possible_packings((2, 3, 4, 6), (3, 2, 4, 6)) == [Packing("frames_first", (2, 4, 6))]
    assert possible_packings((6, 12), (3, 4, 6)) == [Packing("patches", (4, 6), (2, 2))]
    assert possible_packings((48, 3), (3, 2, 4, 6)) == [Packing("patches", (2, 4, 6), (1, 1, 1))]
    assert [p.layout for p in possible_packings((3, 3, 4, 6), (3, 3, 4, 6))] == ["same", "frames_first"]
    with pytest.raises(UnsupportedPipelineError, match=r"\[5, 12\] are no known packing of the VAE's"):
        possible_packings((5, 12), (3, 4, 6))


def test_a_sequence_of_another_size_is_refused() -> None:
    with pytest.raises(ShapeError, match="8 patches, but this codec was set up at load for 6"):
        Packing("patches", (4, 6), (2, 2)).unpack(torch.zeros(1, 8, 12))


def test_moments_are_read_from_config_or_buffers() -> None:
    mean, std = latent_moments(vae(4, shift_factor=0.06, scaling_factor=1.5))
    assert (float(mean), float(std)) == pytest.approx((0.06, 1 / 1.5))
    mean, std = latent_moments(wan_vae())
    assert_close(mean, torch.tensor([0.1, -0.2, 0.3, 0.0]))
    assert_close(std, torch.tensor([0.5, 1.5, 2.0, 1.0]))
    mean, _ = latent_moments(ltx().vae)
    assert_close(mean, torch.linspace(-0.5, 0.5, 8))
    mean, std = latent_moments(stable_audio().vae)
    assert (float(mean), float(std)) == (0.0, 1.0)


def test_the_spectrogram_is_hifigans() -> None:
    """160 samples a frame at 16 kHz are a window of 1024, as AudioLDM's 64 bands are computed."""
    waveform = 0.3 * torch.randn(1, 3200, generator=torch.Generator().manual_seed(0))
    margin = (1024 - 160) // 2
    padded = np.pad(waveform[0].numpy().astype(np.float64), (margin, margin), mode="reflect")
    filters = mel_filter_bank(513, 64, 0.0, 8000.0, 16000, norm="slaney", mel_scale="slaney")
    magnitude = spectrogram(
        padded, window_function(1024, "hann"), 1024, 160, fft_length=1024, power=1.0, center=False
    )
    expected = np.log(np.maximum(filters.T @ magnitude, 1e-5)).T
    found = log_mel(waveform, sample_rate_hz=16000, hop=160, bands=64)
    assert found.shape == (1, 20, 64)
    assert_close(found[0], torch.tensor(expected).float(), rtol=1e-3, atol=1e-3)


def test_silence_is_the_floor_and_has_a_gradient() -> None:
    waveform = torch.zeros(1, 1600, requires_grad=True)
    mel = log_mel(waveform, sample_rate_hz=16000, hop=160, bands=16)
    assert float(mel.max()) == pytest.approx(float(np.log(1e-5)), abs=1e-4)
    mel.sum().backward()
    assert waveform.grad is not None
    assert torch.isfinite(waveform.grad).all()


def test_sound_is_padded_to_whole_cells_and_refused_beyond() -> None:
    codec = WaveformCodec(VAELatents(stable_audio().vae, Packing("same", (16,))), (2, 28), (4, 16))
    short = 0.5 * torch.randn(1, 2, 20, generator=torch.Generator().manual_seed(0))
    silent = torch.cat([short, torch.zeros(1, 2, 12)], -1)
    with torch.no_grad():
        assert torch.equal(codec.encode(short), codec.encode(silent))
        assert codec.decode(codec.encode(short)).shape == (1, 2, 28)
    with pytest.raises(ShapeError, match=r"sound \[B, 2, N\] with N at most 32, got \[1, 2, 33\]"):
        codec.encode(torch.zeros(1, 2, 33))


def test_an_unknown_vocoder_decodes_and_does_not_encode() -> None:
    pipeline = audioldm2()
    pipeline.vocoder.__class__ = type("AnotherVocoder", (type(pipeline.vocoder),), {})
    form = VAELatents(pipeline.vae, Packing("same", (30, 4)))
    codec = SpectrogramCodec(form, (1, 240), (4, 30, 4), vocoder=pipeline.vocoder)
    with torch.no_grad():
        assert codec.decode(torch.zeros(1, 4, 30, 4)).shape == (1, 1, 240)
        with pytest.raises(ConfigError, match="vocoder of class AnotherVocoder"):
            codec.encode(torch.zeros(1, 1, 240))
        known = replace(codec, vocoder=audioldm2().vocoder)
        assert known.encode(torch.zeros(1, 1, 240)).shape == (1, 4, 30, 4)


def test_media_have_one_form() -> None:
    assert media_of(torch.full((2, 9), 3.0)).tolist() == [[[1.0] * 9]] * 2
    assert media_of(torch.zeros(2, 3, 4, 4, dtype=torch.bfloat16)).dtype == torch.float32
    assert modality_of(media_of(torch.zeros(2, 5, 3, 4, 4))) == "video"
    with pytest.raises(UnsupportedPipelineError, match="the pipeline returned list"):
        media_of([1])
    with pytest.raises(UnsupportedPipelineError, match=r"the pipeline returned \[3\]"):
        media_of(torch.zeros(3))
