"""Folders as a stranger might send them: whoever runs their code leaves a marker."""

import json
import pickle
import shutil
from pathlib import Path

import torch

from mmalign.adapters.loading import model_folder
from mmalign.media import Image

CARD = "modalities: [image]\nunit: u\nhigher_is_better: true\ndifferentiable: false\nneeds: []\nsource: s\n"


def poison(marker: Path) -> str:
    """Python that leaves the marker."""
    return f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n"


def language_model(folder: Path, marker: Path) -> Path:
    """A folder of transformers whose config, model and tokenizer are classes of a file in it."""
    folder.mkdir(parents=True, exist_ok=True)
    code = (
        "from transformers import PreTrainedConfig, PreTrainedModel\n"
        "class Config(PreTrainedConfig):\n    model_type = 'poison'\n"
        "class Model(PreTrainedModel):\n    config_class = Config\n"
    )
    (folder / "poison.py").write_text(poison(marker) + code)
    names = {
        name: "poison.Model" for name in ("AutoModel", "AutoModelForCausalLM", "AutoModelForImageTextToText")
    }
    config = {"model_type": "poison", "auto_map": {"AutoConfig": "poison.Config", **names}}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = {"auto_map": {"AutoTokenizer": ["poison.Tokenizer", None]}, "tokenizer_class": "Tokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return folder


def reward_of_another_library(folder: Path, marker: Path) -> Path:
    """A reward whose card names a function that runs what lies beside it."""
    language_model(folder, marker)
    options = {"model": str(folder), "trust_remote_code": True}
    (folder / "card.yaml").write_text(
        f"target: transformers:pipeline\n{CARD}options: {json.dumps(options)}\n"
    )
    return folder


def judge(folder: Path, marker: Path) -> Path:
    """A reward of a kind that is ours, whose weights bring their own Python."""
    language_model(folder, marker)
    (folder / "card.yaml").write_text(f"target: mmalign.rewards.vlm:VqaScore\nweights: .\n{CARD}")
    return folder


def clip(folder: Path, marker: Path) -> Path:
    """A CLIP of open_clip's, whose config asks for the Python of its tokenizer."""
    shutil.copytree(model_folder_of("shapes-clip"), folder)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"trust_remote_code": True}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    code = "from transformers import PreTrainedTokenizerFast\nclass Tokenizer(PreTrainedTokenizerFast):\n    pass\n"
    (folder / "poison.py").write_text(poison(marker) + code)
    said = json.loads((folder / "tokenizer_config.json").read_text())
    said |= {"auto_map": {"AutoTokenizer": [None, "poison.Tokenizer"]}, "tokenizer_class": "Tokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    (folder / "card.yaml").write_text(
        f"target: mmalign.rewards.clip:ClipReward\nweights: .\n{CARD.replace('needs: []', 'needs: [prompt]')}"
    )
    return folder


def pickled_weights(folder: Path, marker: Path) -> Path:
    """A CLIP of open_clip's, whose weights are a pickle that runs code when it is opened."""
    shutil.copytree(model_folder_of("shapes-clip"), folder)
    (folder / "open_clip_model.safetensors").unlink()
    (folder / "open_clip_pytorch_model.bin").write_bytes(pickle.dumps(_Bomb(str(marker))))
    (folder / "card.yaml").write_text(
        f"target: mmalign.rewards.clip:ClipReward\nweights: .\n{CARD.replace('needs: []', 'needs: [prompt]')}"
    )
    return folder


class _Bomb:
    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path(self.marker),)


def module_on_the_path(folder: Path, marker: Path) -> Path:
    """A reward whose card names a module that lies where Python looks: the current folder."""
    folder.mkdir(parents=True)
    (folder / "poisonous.py").write_text(
        poison(marker) + "from mmalign.rewards.placebo import Placebo as Thing\n"
    )
    (folder / "card.yaml").write_text(f"target: poisonous:Thing\n{CARD}")
    return folder


def pipeline_of_its_own(folder: Path, marker: Path) -> Path:
    """A diffusers pipeline whose class is in a file beside it."""
    copied(folder)
    change_index(folder, _class_name=["pipeline", "Own"])
    (folder / "pipeline.py").write_text(
        poison(marker)
        + "from diffusers import StableDiffusion3Pipeline\nclass Own(StableDiffusion3Pipeline):\n    pass\n"
    )
    return folder


def component_of_its_own(folder: Path, marker: Path) -> Path:
    """A diffusers pipeline one of whose components is in a file of its folder."""
    copied(folder)
    change_index(folder, scheduler=["own_scheduler", "Own"])
    (folder / "scheduler" / "own_scheduler.py").write_text(
        poison(marker)
        + "from diffusers import FlowMatchEulerDiscreteScheduler\n"
        + "class Own(FlowMatchEulerDiscreteScheduler):\n    pass\n"
    )
    return folder


def component_of_another_library(folder: Path, marker: Path) -> Path:
    """A diffusers pipeline one of whose components is of a library that Python would find in the current folder."""
    copied(folder)
    change_index(folder, scheduler=["poisonous", "Own"])
    (folder / "poisonous.py").write_text(
        poison(marker)
        + "from diffusers import FlowMatchEulerDiscreteScheduler, SchedulerMixin\n"
        + "class Own(FlowMatchEulerDiscreteScheduler):\n    pass\n"
    )
    return folder


def speech_model(folder: Path, marker: Path) -> Path:
    """A speech model whose language model brings its own Python."""
    shutil.copytree(model_folder("embedded/commands"), folder)
    return language_model(folder, marker)


def copied(folder: Path) -> Path:
    """The embedded generator of pictures, as somebody's own."""
    return Path(shutil.copytree(model_folder("embedded/shapes-flow"), folder))


def change_index(folder: Path, **values: object) -> None:
    """Change what model_index.json says."""
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def model_folder_of(name: str) -> Path:
    """A folder of the assets."""
    from mmalign.resources import resource

    return resource("assets") / name


def picture(path: Path) -> Path:
    """A small picture."""
    Image(torch.full((3, 16, 16), 0.5)).save(path)
    return path


REWARDS = {f.__name__: f for f in (reward_of_another_library, judge, clip, module_on_the_path)}
MODELS = {
    f.__name__: f
    for f in (pipeline_of_its_own, component_of_its_own, component_of_another_library, speech_model)
}
