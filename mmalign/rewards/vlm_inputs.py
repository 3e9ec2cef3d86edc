"""Turns questions about media into what a processor of transformers takes: a chat, and lists of pictures and sounds."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.media import Audio, Image, Media, Scene3D, Video
from mmalign.rewards.vlm_judge import Question

FRAMES = 8
"""Frames of a video that are shown to a model that knows only pictures."""


def parts_of(media: Media, processor: Any, *, frames: int | None) -> Iterator[tuple[str, Any]]:
    """What a medium is shown as: some of ``("image", [3, H, W])``, ``("video", Video)`` and ``("audio", Audio)``.

    A video is shown whole where the processor takes videos and ``frames`` is None, else as that many frames (8 by
    default) evenly over its time, each a picture; a scene is shown as its views.

    Raises:
        ConfigError: the processor does not take this medium, or a scene has no views.
    """
    if isinstance(media, Image):
        yield "image", media.pixels
    elif isinstance(media, Video):
        if frames is None and _takes(processor, "video"):
            yield "video", media
        else:
            count = min(frames or FRAMES, len(media.frames))
            middles = ((torch.arange(count) + 0.5) * len(media.frames) / count).long()
            yield from (("image", frame) for frame in media.frames[middles])
    elif isinstance(media, Scene3D):
        if media.views is None:
            raise ConfigError("a scene without views cannot be shown to a judge; render some of its mesh")
        yield from (("image", view) for view in media.views)
    elif isinstance(media, Audio) and _takes(processor, "audio"):
        yield "audio", media
    else:
        raise ConfigError(f"this judge's processor ({type(processor).__name__}) takes no {media.modality}")


def _takes(processor: Any, kind: str) -> bool:
    if kind == "audio":
        return any(
            getattr(processor, name, None) is not None for name in ("feature_extractor", "audio_processor")
        )
    return (
        getattr(processor, "video_processor", None) is not None and placeholder(processor, kind) is not None
    )


def placeholder(processor: Any, kind: str) -> str | None:
    """The word that stands for a medium in a rendered chat, if the processor names one."""
    found = getattr(processor, f"{kind}_token", None)
    return None if found is None else str(found)


def render(
    parts: Sequence[tuple[str, Any]], text: str, processor: Any, *, system: str | None, **options: Any
) -> str:
    """The conversation as text, up to where the judge begins to speak; media come before the question."""
    chat: list[dict[str, Any]] = []
    if system is not None:
        chat.append({"role": "system", "content": [{"type": "text", "text": system}]})
    content = [*({"type": kind} for kind, _ in parts), {"type": "text", "text": text}]
    chat.append({"role": "user", "content": content})
    rendered: str = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False, **options)
    return rendered


def encode(
    questions: Sequence[Question],
    processor: Any,
    texts: Sequence[str],
    *,
    frames: int | None,
    padding_side: str,
) -> dict[str, Any]:
    """A batch as the model takes it.

    Pictures go in as fractions, without rounding to 8 bits, so a gradient reaches those that ask for one.

    Args:
        questions: N of them.
        processor: of transformers.
        texts: N rendered chats.
        frames: as in :func:`parts_of`.
        padding_side: "left" to write on, "right" to look at the last token.

    Returns:
        ``input_ids`` [N, L], ``attention_mask`` [N, L] and what the model wants of the media.

    Raises:
        ConfigError: a gradient is asked for, and this processor does something to pictures that has none.
    """
    media = [part for q in questions for m in q.media for part in parts_of(m, processor, frames=frames)]
    images = [part for kind, part in media if kind == "image"]
    videos = [part for kind, part in media if kind == "video"]
    sounds = [part for kind, part in media if kind == "audio"]
    given: dict[str, Any] = {}
    if images:
        given["images"] = [image.detach() for image in images]
    if videos:
        given["videos"] = [list(video.frames.detach()) for video in videos]
        given |= {"do_sample_frames": False, "video_metadata": [_metadata(video) for video in videos]}
    if images or videos:
        given["do_rescale"] = False
    if sounds:
        extractor = getattr(processor, "feature_extractor", None) or processor.audio_processor
        rate = int(extractor.sampling_rate)
        given["audio"] = [sound.mono().resampled(rate).waveform[0].detach().cpu().numpy() for sound in sounds]
        given["sampling_rate"] = rate
    begin = getattr(processor.tokenizer, "bos_token", None)
    if begin is not None and texts and texts[0].startswith(begin):
        given["add_special_tokens"] = False  # the template has put it there
    inputs = dict(
        processor(text=list(texts), padding=True, padding_side=padding_side, return_tensors="pt", **given)
    )
    if any(image.requires_grad for image in images) and torch.is_grad_enabled():
        inputs["pixel_values"] = _with_grad(images, processor, inputs["pixel_values"])
    return inputs


def _metadata(video: Video) -> dict[str, Any]:
    count = len(video.frames)
    return {
        "total_num_frames": count,
        "fps": video.fps,
        "duration": video.duration_s,
        "frames_indices": list(range(count)),
    }


def _with_grad(images: Sequence[Tensor], processor: Any, expected: Tensor) -> Tensor:
    """The same pixels by the same processor, with their history."""
    options = dict(getattr(processor, "images_kwargs", None) or {})
    try:
        found = processor.image_processor(
            list(images), **{**options, "do_rescale": False, "return_tensors": "pt"}
        )
        pixels = found["pixel_values"]
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"{_no_gradient(processor)} ({str(error).splitlines()[0]})") from error
    if not isinstance(pixels, Tensor) or not pixels.requires_grad:
        raise ConfigError(_no_gradient(processor))
    if pixels.shape != expected.shape or not torch.allclose(pixels.detach(), expected, atol=1e-5):
        raise ConfigError(_no_gradient(processor))
    return pixels


def _no_gradient(processor: Any) -> str:
    name = type(getattr(processor, "image_processor", processor)).__name__
    return (
        f"{name} loses the gradient of pictures; use this judge's score, or a card with differentiable: false"
    )
