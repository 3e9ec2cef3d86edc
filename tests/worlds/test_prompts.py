"""The prompt files of the worlds hold each caption of their side of the split once."""

from collections.abc import Callable

import pytest

from mmalign.resources import resource
from mmalign.worlds import commands, moving_shapes, shapes, tones, views
from mmalign.worlds.shapes import Split

CAPTIONS: dict[str, Callable[[Split], list[str]]] = {
    "commands": commands.captions,
    "moving-shapes": moving_shapes.captions,
    "shapes": shapes.captions,
    "shapes-views": views.captions,
    "tones": tones.captions,
}


@pytest.mark.parametrize("name", CAPTIONS)
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_a_prompt_file_is_its_side_of_the_split(name: str, split: Split) -> None:
    path = resource("assets") / "prompts" / f"{name}-{split}.txt"
    assert sorted(path.read_text(encoding="utf-8").splitlines()) == sorted(CAPTIONS[name](split))
