"""The JSON of Flow-Factory's remote rewards, so that its trainers can use ours.

Its client posts {"prompt": [TEXT], "image": [PNG], "video": [[PNG]], "condition_images": [[PNG]], "kwargs": {...}} to
/compute, each PNG in base64 and what is not used null, and reads {"rewards": [NUMBER]}, or {"error": TEXT}, which ends
its run with this text; its server template calls the same fields prompts, images, videos and extra. Both are read here.
Its ``server_url`` may carry the token: http://any:TOKEN@127.0.0.1:8000.

Source: X-GenGroup/Flow-Factory, src/flow_factory/rewards/my_reward_remote.py and reward_server/example_server.py.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from mmalign.errors import DataError
from mmalign.media import Media, Sample
from mmalign.rewards.base import OK, Score
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.wire import decode_media

CONDITION = "source_image"
"""Where the first condition image of a sample goes in its context."""
DEFAULT_FPS = 8.0
"""Frames arrive without a rate; ``kwargs`` may name it as ``fps``."""


def samples_of(body: Mapping[str, Any]) -> list[Callable[[], Sample]]:
    """The samples of a request, each read when it is called; that raises a ``DataError`` where it is no picture.

    Raises:
        DataError: a field is missing, is no list, or has another length than the prompts.
    """
    prompts = _column(body, "prompt", "prompts")
    if prompts is None or not all(isinstance(prompt, str) for prompt in prompts):
        raise DataError("prompt: expected a list of texts", file="/compute")
    count = len(prompts)
    images, videos = (
        _column(body, "image", "images", count=count),
        _column(body, "video", "videos", count=count),
    )
    if images is not None and videos is not None:
        raise DataError("expected image or video, got both", file="/compute")
    if _column(body, "condition_videos", count=count) is not None:
        raise DataError("condition_videos: no reward here takes them", file="/compute")
    conditions = _column(body, "condition_images", count=count)
    extra = body.get("kwargs") or body.get("extra") or {}
    fps = extra.get("fps", DEFAULT_FPS) if isinstance(extra, dict) else DEFAULT_FPS

    def read(i: int, prompt: str) -> Sample:
        media: Media | None = None
        if images is not None:
            media = _picture(images[i], f"image {i}")
        elif videos is not None:
            media = decode_media({"frames": videos[i], "fps": fps}, name=f"video {i}")
        condition = conditions[i] if conditions is not None else None
        if condition is not None and not (isinstance(condition, list) and len(condition) <= 1):
            raise DataError(f"condition_images {i}: expected a list of at most one picture", file="/compute")
        context = {CONDITION: _picture(condition[0], f"condition image {i}")} if condition else {}
        return Sample(prompt, media, context)

    return [partial(read, i, prompt) for i, prompt in enumerate(prompts)]


def computed(score: Score, card: RewardCard) -> dict[str, Any]:
    """The answer: one number a sample, turned so that higher is better, or why there is one without.

    The layout has no word for a single sample that failed, and a number in its place would be trained on, so then the
    whole answer is an error.
    """
    for number, (status, value) in enumerate(zip(score.status, score.value.tolist(), strict=True)):
        if status != OK or not math.isfinite(value):
            return failed(f"sample {number}: {status}")
    return {"rewards": [card.sign * value for value in score.value.tolist()]}


def failed(message: str) -> dict[str, Any]:
    """An error as this layout spells it, sent with HTTP 200: of other statuses the client shows no text."""
    return {"error": message, "rewards": None}


def _picture(data: Any, name: str) -> Media:
    return decode_media({"type": "image/png", "data": data}, name=name)


def _column(body: Mapping[str, Any], *names: str, count: int | None = None) -> list[Any] | None:
    """The list under the first of these names that is not null."""
    for name in names:
        found = body.get(name)
        if found is None:
            continue
        if not isinstance(found, list) or count not in (None, len(found)):
            expected = "a list" if count is None else f"a list of {count}, one for each prompt"
            raise DataError(f"{name}: expected {expected}", file="/compute")
        return found
    return None
