"""Every page with commands, from its first block to its last, as a reader would type them: ``pytest -m pages``."""

import json
from pathlib import Path

import pytest

from tests import pages
from tests.pages import Page

ROOT = pages.ROOT


def own_model(folder: Path) -> None:
    """What a reader brings: a model, here a small random one of another class than the recipes'."""
    from tests.generators.small_pipelines import stable_diffusion_3

    stable_diffusion_3().save_pretrained(folder / "my-model")


def own_model_and_pairs(folder: Path) -> None:
    """And preferences of pictures."""
    import torch

    from mmalign.media import Image

    own_model(folder)
    rows = []
    for i in range(2):
        for side in ("chosen", "rejected"):
            Image(torch.rand(3, 16, 16)).save(folder / f"{i}-{side}.png")
        rows.append({"prompt": f"picture {i}", "chosen": f"{i}-chosen.png", "rejected": f"{i}-rejected.png"})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


PAGES = {
    "readme": Page(
        "README.md",
        {
            "git clone https://github.com/mmalign/mmalign && cd mmalign\npip install uv && ": "",
            "uv run pytest\n": "",
            "--model stabilityai/stable-diffusion-3.5-medium": "--model my-model",
            "--preferences pairs.parquet": "--preferences pairs.jsonl --sampling.height 16 --sampling.width 16",
        },
        own_model_and_pairs,
    ),
    "image": Page("docs/tutorials/image.md"),
    "video": Page("docs/tutorials/video.md"),
    "scene3d": Page("docs/tutorials/scene3d.md"),
    "audio": Page("docs/tutorials/audio.md"),
    "speech": Page("docs/tutorials/speech.md"),
    "model": Page("docs/your-own/model.md", prepare=own_model),
    "reward": Page("docs/your-own/reward.md"),
    "preferences": Page("docs/your-own/preferences.md"),
}


def test_no_page_with_commands_is_left_out() -> None:
    found = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    with_commands = {
        path.relative_to(ROOT).as_posix()
        for path in found
        if pages.BLOCK.search(path.read_text(encoding="utf-8"))
    }
    assert with_commands == {page.path for page in PAGES.values()}


@pytest.mark.pages
@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_followed(name: str, tmp_path: Path) -> None:
    done = pages.run(PAGES[name], tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    assert (name == "reward") == ("report:" not in done.stderr), "a run came to its end"
