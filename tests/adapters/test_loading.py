"""What is no model that can be aligned is refused in a sentence that says why, and what to do."""

import json
import shutil
from pathlib import Path

import pytest

from mmalign.adapters.loading import load_adapter, model_folder
from mmalign.errors import ConfigError, UnknownNameError


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The embedded generator of videos as a user's own folder."""
    return Path(shutil.copytree(model_folder("embedded/shapes-video"), tmp_path / "mine"))


@pytest.mark.parametrize(
    "gone",
    [
        "model_index.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "transformer",
        "vae",
        "scheduler",
    ],
)
def test_a_folder_in_which_something_is_missing(copy: Path, gone: str) -> None:
    path = copy / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ConfigError, match="not a diffusers pipeline that can be loaded here") as caught:
        load_adapter(str(copy))
    assert "embedded/shapes-video" in str(caught.value), "what there is instead"


def test_a_model_of_another_modality() -> None:
    with pytest.raises(
        ConfigError, match="'embedded/tones' makes audio, and modality = 'video' was asked for"
    ):
        load_adapter("embedded/tones", modality="video")
    with pytest.raises(ConfigError, match=r"no speech\.json here"):
        load_adapter("embedded/tones", modality="speech")
    with pytest.raises(UnknownNameError, match="Did you mean 'video'"):
        load_adapter("embedded/tones", modality="vidoe")


def test_options_of_the_folder_hold_unless_others_are_given(copy: Path) -> None:
    assert load_adapter(str(copy)).generator.media_shape == (9, 3, 32, 32)
    assert load_adapter(str(copy), frames=17).generator.media_shape == (17, 3, 32, 32)
    (copy / "options.json").write_text(json.dumps({"heigth": 32}))
    with pytest.raises(ConfigError, match="LTXPipeline has no option 'heigth'"):
        load_adapter(str(copy))
