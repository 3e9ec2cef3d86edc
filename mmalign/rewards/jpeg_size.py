"""How many bytes a picture takes as a JPEG: the plainest reward there is, for smoke tests of a method."""

import io

from mmalign.media import Image, Sample
from mmalign.rewards.measured import MeasuredReward, Measurement

QUALITY = 95


def jpeg_size_kb(picture: Image) -> float:
    """Size of a picture as a JPEG of quality 95, in units of 1000 bytes; more detail and more noise take more.

    The last digits are the encoder's own (libjpeg's, in Pillow, with its usual colour subsampling): compare sizes of
    one version, and of pictures of one size.

    Source: Black et al. 2023, Training diffusion models with reinforcement learning, section 5.1 (arXiv:2305.13301).
    """
    file = io.BytesIO()
    picture.to_pil().save(file, format="JPEG", quality=QUALITY)
    return len(file.getvalue()) / 1000


class JpegSize(MeasuredReward):
    """The size of a picture as a JPEG, in kB; see :func:`jpeg_size_kb`.

    The card says which way is better: a large file (incompressibility) or a small one (compressibility). Both have a
    degenerate best, noise and one flat colour; that is what they are for.
    """

    def measure(self, sample: Sample) -> Measurement:
        """The size of one picture."""
        assert isinstance(sample.media, Image)
        return Measurement(jpeg_size_kb(sample.media))
