"""The log-mel spectrogram that HiFi-GAN vocoders are trained on, with a gradient."""

import torch
from torch import Tensor


def log_mel(waveform: Tensor, *, sample_rate_hz: int, hop: int, bands: int) -> Tensor:
    """Natural logarithm of the mel bands of a waveform.

        log(max(|STFT(waveform)| M, 1e-5)),   M the triangular filters on Slaney's scale, of equal area

    with a periodic Hann window as long as the FFT, which is the power of two of at least four hops (1024 for the usual
    160 and 256), and ends mirrored so that there is exactly one frame a hop.

    Args:
        waveform: [B, N] in [-1, 1], N a multiple of ``hop`` and more than an FFT.
        sample_rate_hz: of the waveform.
        hop: samples of a frame.
        bands: M.

    Returns:
        [B, N // hop, bands].

    Source: Kong et al. 2020, HiFi-GAN (arXiv:2010.05646), ``mel_spectrogram`` of its code; AudioLDM uses the same.
    """
    from torchaudio.functional import melscale_fbanks

    size = 1 << (4 * hop - 1).bit_length()
    margin = (size - hop) // 2
    padded = torch.nn.functional.pad(waveform.unsqueeze(1), (margin, margin), mode="reflect").squeeze(1)
    window = torch.hann_window(size, device=waveform.device, dtype=waveform.dtype)
    spectrum = torch.stft(padded, size, hop, window=window, center=False, return_complex=True)
    # The 1e-9 is HiFi-GAN's own: a magnitude has no gradient at 0.
    magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()
    filters = melscale_fbanks(
        size // 2 + 1, 0.0, sample_rate_hz / 2, bands, sample_rate_hz, norm="slaney", mel_scale="slaney"
    )
    return (magnitude.transpose(1, 2) @ filters.to(magnitude)).clamp(min=1e-5).log()
