"""A generator of sound: what notebooks import."""

from typing import Any, ClassVar

from torch import Tensor

from mmalign.adapters.denoising import DenoisingAdapter
from mmalign.errors import ConfigError, UnsupportedPipelineError
from mmalign.media import Audio, Modality


class AudioAdapter(DenoisingAdapter[Audio]):
    """A text-to-audio pipeline of diffusers; its rate is that of its vocoder or, where it has none, of its VAE."""

    modality: ClassVar[Modality] = "audio"

    def __init__(self, pipeline: Any, **options: Any) -> None:
        self.sample_rate_hz = _sample_rate(pipeline)
        super().__init__(pipeline, **options)

    def medium(self, values: Tensor) -> Audio:
        """A sound of its waveform [C, N] in [-1, 1]."""
        return Audio(values, self.sample_rate_hz)

    def values(self, medium: Audio) -> Tensor:
        """The waveform [C, N] in [-1, 1].

        Raises:
            ConfigError: it has another rate.
        """
        if medium.sample_rate_hz != self.sample_rate_hz:
            raise ConfigError(
                f"sample_rate_hz = {medium.sample_rate_hz}, but this generator makes {self.sample_rate_hz}; "
                f"audio.resampled({self.sample_rate_hz}) converts it"
            )
        return medium.waveform


def _sample_rate(pipeline: Any) -> int:
    for name in ("vocoder", "vae"):
        rate = getattr(getattr(getattr(pipeline, name, None), "config", None), "sampling_rate", None)
        if rate is not None:
            return int(rate)
    raise UnsupportedPipelineError(f"{type(pipeline).__name__}: neither a vocoder nor a VAE says its rate")
