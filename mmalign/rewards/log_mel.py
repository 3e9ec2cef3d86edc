"""The log-mel spectrogram that CLAP hears, on tensors and with a gradient."""

import torch
from torch import Tensor, nn


class LogMel(nn.Module):
    """Decibels of mel bands.

        10 log10(max(|STFT(waveform)|^2 M, 1e-10)),   M the triangular filters on Slaney's scale, of equal area

    with a periodic Hann window, frames centred and the ends mirrored, as CLAP's authors compute it with librosa and
    transformers with numpy.

    Args:
        sample_rate_hz: of the waveforms.
        window: samples of one frame, also of the FFT.
        hop: samples from one frame to the next.
        bands: number of mel bands.
        low_hz: where the lowest band begins.
        high_hz: where the highest band ends.
    """

    def __init__(
        self, *, sample_rate_hz: int, window: int, hop: int, bands: int, low_hz: float, high_hz: float
    ) -> None:
        from torchaudio.functional import melscale_fbanks

        super().__init__()
        self.window_size, self.hop = window, hop
        self.window: Tensor
        self.filters: Tensor
        # In float64 until the last step: the filters' edges are differences of near numbers.
        self.register_buffer("window", torch.hann_window(window, dtype=torch.float64).float())
        with torch.device("cpu"):
            filters = melscale_fbanks(
                window // 2 + 1, low_hz, high_hz, bands, sample_rate_hz, norm="slaney", mel_scale="slaney"
            )
        self.register_buffer("filters", filters)

    def forward(self, waveform: Tensor) -> Tensor:
        """[B, N] in [-1, 1] to [B, 1 + N // hop, bands]."""
        spectrum = torch.stft(
            waveform,
            self.window_size,
            self.hop,
            window=self.window.to(waveform.dtype),
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        power = spectrum.real.square() + spectrum.imag.square()  # abs() has no gradient at 0
        mel = power.transpose(1, 2) @ self.filters.to(waveform.dtype)
        return 10 * mel.clamp(min=1e-10).log10()
