"""The model card has a head that the Hub can read and numbers that agree with the report."""

import json
import re
from pathlib import Path

import pytest
import yaml

from mmalign.evaluation.model_card import Exported, licence_of, write_model_card
from mmalign.evaluation.verdict import verdict
from tests.evaluation.conftest import SUMMARY, MakeRun


def parts(path: Path) -> tuple[dict[str, object], str]:
    _, head, text = path.read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), text


def test_front_matter(make_run: MakeRun) -> None:
    path = write_model_card(make_run(model="stabilityai/stable-diffusion-3.5-medium"))
    assert path.name == "README.md"
    head, text = parts(path)
    assert head == {
        "base_model": "stabilityai/stable-diffusion-3.5-medium",
        "base_model_relation": "adapter",
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["image", "flow_dpo", "lora", "alignment", "mmalign"],
    }
    assert text.startswith("\n# stabilityai/stable-diffusion-3.5-medium aligned with flow_dpo\n")


def test_the_card_says_what_the_report_says(make_run: MakeRun) -> None:
    _, text = parts(write_model_card(make_run()))
    assert verdict(SUMMARY) in text
    assert "| shapes-truth | evaluation only | 0.651 | 0.727 | +0.052 to +0.101 | 512 |" in text
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    compile(code[1], "card", "exec")
    assert 'load_lora_weights("lora")' in code[1]


@pytest.mark.parametrize("model", ["/home/someone/models/mine", "work/models/deep/mine"])
def test_a_local_model_gives_its_last_name_in_the_head(make_run: MakeRun, model: str) -> None:
    head, _ = parts(write_model_card(make_run(model=model)))
    assert head["base_model"] == "mine"


def test_pictures_are_linked_only_if_they_are_there(make_run: MakeRun) -> None:
    folder = make_run()
    assert "samples/before.png" not in write_model_card(folder).read_text(encoding="utf-8")
    for side in ("before", "after"):
        (folder / "samples" / f"{side}.png").touch()
    assert "| ![before](samples/before.png) | ![after](samples/after.png) |" in write_model_card(
        folder
    ).read_text("utf-8")


def test_a_student_and_a_token_model_are_loaded_their_own_way(make_run: MakeRun) -> None:
    folder = make_run()
    lora = folder / "lora"
    (lora / "pytorch_lora_weights.safetensors").rename(lora / "adapter_config.json")
    head, text = parts(write_model_card(folder))
    assert head["library_name"] == "peft"
    assert "PeftModel.from_pretrained" in text
    (lora / "adapter_config.json").unlink()
    (folder / "student").mkdir()
    head, text = parts(write_model_card(folder))
    assert head["base_model_relation"] == "finetune"
    assert 'DiffusionPipeline.from_pretrained("student")' in text
    assert "lora" not in text.lower()


def test_a_run_that_is_not_finished_has_a_card_too(make_run: MakeRun) -> None:
    folder = make_run()
    (folder / "summary.json").write_text(json.dumps({}))
    assert "This run is not finished." in write_model_card(folder).read_text(encoding="utf-8")


def test_the_licence_is_the_base_models_own(make_run: MakeRun, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: other\nlicense_name: house\ntags: [a]\n---\n# Base\n")
    head, _ = parts(write_model_card(make_run(model=str(base))))
    assert (head["license"], head["license_name"]) == ("other", "house")
    assert licence_of("embedded/shapes-flow") == {"license": "apache-2.0"}
    (base / "README.md").write_text("---\nlicense: [a\n---\n")
    assert licence_of(str(base)) == licence_of("nobody/nothing") == {}


@pytest.mark.parametrize(
    ("form", "library", "relation", "line"),
    [
        ("diffusers", "diffusers", "adapter", 'pipeline.load_lora_weights(".")'),
        ("peft", "peft", "adapter", 'PeftModel.from_pretrained(pipeline.transformer, ".")'),
        ("merged", "diffusers", "finetune", 'pipeline = DiffusionPipeline.from_pretrained(".")'),
    ],
)
def test_an_export_says_how_it_is_loaded(
    make_run: MakeRun, tmp_path: Path, form: str, library: str, relation: str, line: str
) -> None:
    out = tmp_path / "out"
    head, text = parts(write_model_card(make_run(), export=Exported(out, form, "transformer")))
    assert (head["library_name"], head["base_model_relation"]) == (library, relation)
    assert line in text
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    compile(code[1], "card", "exec")
    assert not (tmp_path / "runs" / "image-flow_dpo-1" / "README.md").exists()
