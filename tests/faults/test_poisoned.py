"""Folders that a stranger might send run no code of theirs through any command; the user's own --trust opens it."""

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mmalign.cli.main import main
from mmalign.media import Image
from tests.faults import poison

QUICK = ("--sampling.steps", "1", "--evaluation.n", "2", "--train.steps", "1", "--method.own.prompts", "1")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which Python searches for modules as it does that of a user who works there."""
    import diffusers.utils.dynamic_modules_utils as of_diffusers
    import transformers.dynamic_module_utils as of_transformers

    for module in (of_diffusers, of_transformers):
        monkeypatch.setattr(module, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("poisonous", "poison"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    poison.picture(tmp_path / "a.png")
    (tmp_path / "pairs.jsonl").write_text(
        json.dumps({"prompt": "x", "chosen": "a.png", "rejected": "a.png"}) + "\n"
    )
    return tmp_path


def poisoned(place: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The folder and the marker of what ``poison`` calls so."""
    folder = {**poison.REWARDS, **poison.MODELS}[name](place / "theirs", place / "marker")
    monkeypatch.syspath_prepend(str(folder))
    return folder, place / "marker"


def judge_commands(place: Path, name: str) -> dict[str, list[str]]:
    """Every command that loads a reward."""
    return {
        "score": ["score", "a.png", "--prompt", "x", "--reward", name],
        "serve": ["serve", "--reward", name, "--port", "0"],
        "evaluate": ["reward", "evaluate", name, "--data", "pairs.jsonl"],
        "generate": [
            *("generate", "embedded/shapes-flow", "--prompt", "x", "--steps", "1", "--guide", "best_of_n"),
            *("--guide-n", "1", "--out", "drawn", "--reward", name),
        ],
        "align": ["align", "image/flow_dpo", "--out", "run", *QUICK, "--reward", name],
        "heldout": ["align", "image/flow_dpo", "--out", "run", *QUICK, "--heldout-reward", name],
    }


REFUSED_UNREAD = ("reward_of_another_library", "module_on_the_path")
"""Those whose card alone says it: refused before anything is loaded."""
CASES = [
    *((name, "score") for name in poison.REWARDS),
    *((name, command) for name in REFUSED_UNREAD for command in ("serve", "evaluate", "align", "heldout")),
    *(("clip", command) for command in ("serve", "evaluate")),
    *(
        pytest.param(name, command, marks=pytest.mark.slow)
        for name in poison.REWARDS
        for command in ("generate", "align")
        if (name, command) not in {(name, "align") for name in REFUSED_UNREAD}
    ),
]


@pytest.mark.parametrize(("name", "command"), CASES)
def test_no_command_runs_the_code_of_a_reward(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, name: str, command: str
) -> None:
    folder, marker = poisoned(place, name, monkeypatch)
    assert main(judge_commands(place, str(folder))[command]) == 2
    said = capsys.readouterr().err
    assert not marker.exists()
    assert f"add --trust {folder}" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("name", poison.REWARDS)
def test_looking_at_a_card_runs_nothing_and_says_what_it_asks_for(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, name: str
) -> None:
    folder, marker = poisoned(place, name, monkeypatch)
    assert main(["rewards", str(folder)]) == 0
    assert not marker.exists()
    shown = yaml.safe_load(capsys.readouterr().out)
    assert ("not trusted" in shown["state"]) == (name in REFUSED_UNREAD)
    assert main(["rewards", str(folder), "--trust", str(folder)]) == 0
    assert not marker.exists()
    assert "not trusted" not in yaml.safe_load(capsys.readouterr().out)["state"]


@pytest.mark.parametrize("name", REFUSED_UNREAD)
def test_a_dry_run_refuses_a_reward_too(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, name: str
) -> None:
    folder, marker = poisoned(place, name, monkeypatch)
    for option in ("--reward", "--heldout-reward"):
        assert main(["align", "image/flow_dpo", option, str(folder), "--dry-run"]) == 2
        assert f"add --trust {folder}" in capsys.readouterr().err
        assert not marker.exists()


@pytest.mark.parametrize("name", poison.REWARDS)
def test_trust_runs_the_code_of_a_reward_and_says_so(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, name: str
) -> None:
    folder, marker = poisoned(place, name, monkeypatch)
    other = ["--trust", "somebody/else"]
    assert main([*judge_commands(place, str(folder))["score"], *other]) == 2
    assert not marker.exists(), "another's trust opens nothing"
    capsys.readouterr()
    # What the stranger's code does then is its own affair.
    own_affair = pytest.raises(TypeError) if name == "reward_of_another_library" else nullcontext()
    with own_affair:
        main([*judge_commands(place, f"./{folder.name}")["score"], "--trust", str(folder)])
    assert marker.exists()
    assert f"mmalign: trusted {folder}: " in capsys.readouterr().err


@pytest.mark.parametrize("trust", [False, True])
def test_pickled_weights_are_never_opened(
    place: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, trust: bool
) -> None:
    folder = poison.pickled_weights(place / "theirs", place / "marker")
    trusting = ["--trust", str(folder)] if trust else []
    assert main(["score", "a.png", "--prompt", "x", "--reward", str(folder), *trusting]) == 2
    assert not (place / "marker").exists()
    assert "open_clip could not load" in capsys.readouterr().err


@pytest.mark.parametrize("name", poison.MODELS)
@pytest.mark.parametrize("command", ["generate", "align", "dry run"])
def test_no_command_runs_the_code_of_a_model(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, name: str, command: str
) -> None:
    folder, marker = poisoned(place, name, monkeypatch)
    recipe = "speech/grpo" if name == "speech_model" else "image/flow_dpo"
    commands = {
        "generate": ["generate", str(folder), "--prompt", "x", "--out", "drawn"],
        "align": ["align", recipe, "--model", str(folder), "--out", "run"],
        "dry run": ["align", recipe, "--model", str(folder), "--dry-run"],
    }
    assert main(commands[command]) == 2
    said = capsys.readouterr().err
    assert not marker.exists()
    assert f"add --trust {folder}" in said


@pytest.mark.parametrize("name", poison.MODELS)
def test_trust_runs_the_code_of_a_model_and_says_so(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, name: str
) -> None:
    folder, marker = poisoned(place, name, monkeypatch)
    command = ["generate", str(folder), "--prompt", "x", "--steps", "1", "--out", "drawn"]
    with pytest.raises(AttributeError) if name == "speech_model" else nullcontext():
        assert main([*command, "--trust", str(folder)]) == 0
        assert (place / "drawn" / "00000.png").is_file()
    assert marker.exists()
    assert f"mmalign: trusted {folder}: " in capsys.readouterr().err


@pytest.mark.parametrize("field", ["model", "reward", "heldout_reward", "address"])
def test_a_recipe_that_somebody_sends_grants_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, field: str
) -> None:
    from mmalign.training.recipe import load_recipe, to_values

    name = "component_of_another_library" if field == "model" else "module_on_the_path"
    folder, marker = poisoned(place, name, monkeypatch)
    address = "http://127.0.0.1:9"
    values = to_values(load_recipe("image/flow_dpo"))
    change = {
        "model": str(folder),
        "reward": [str(folder)],
        "heldout_reward": str(folder),
        "address": [address],
    }
    values["reward" if field == "address" else field] = change[field]
    (place / "recipe.yaml").write_text(yaml.safe_dump({**values, "out": None}))
    (place / "run").mkdir()
    (place / "run" / "recipe.yaml").write_text((place / "recipe.yaml").read_text())
    for command in (["recipe.yaml", "--dry-run"], ["recipe.yaml", "--out", "new"], ["--resume", "run"]):
        assert main(["align", *command]) == 2
        said = capsys.readouterr().err
        assert f"add --trust {address if field == 'address' else folder}" in said
        assert not marker.exists()
    (place / "recipe.yaml").write_text(yaml.safe_dump({**values, "trust": [str(folder)]}))
    assert main(["align", "recipe.yaml", "--dry-run"]) == 2
    assert "no field of the recipe is called 'trust'" in capsys.readouterr().err


def test_a_recipe_in_python_is_run_and_said_to_be(place: Path, capsys: Any) -> None:
    (place / "mine.py").write_text(poison.poison(place / "marker"))
    assert main(["align", "mine.py", "--dry-run"]) == 2
    assert "mine.py is Python code and is run" in capsys.readouterr().err
    assert (place / "marker").exists()


def test_a_folder_of_preferences_runs_nothing_and_leads_nowhere(place: Path, capsys: Any) -> None:
    folder = place / "preferences"
    folder.mkdir()
    marker = place / "marker"
    (folder / "preferences.py").write_text(poison.poison(marker))
    (folder / "__init__.py").write_text(poison.poison(marker))
    Image(torch.zeros(3, 8, 8)).save(folder / "b.png")
    (folder / "link.png").symlink_to(place / "a.png")
    rows = [
        {"prompt": "x", "chosen": name, "rejected": "b.png"}
        for name in ("../a.png", "link.png", str(place / "a.png"))
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["data", "check", "preferences/pairs.jsonl"]) == 1
    said = capsys.readouterr().out
    assert "rows: 3 = 0 used + 3 rejected" in said
    assert said.count("lies outside") == 3
    for command in (
        ["align", "image/flow_dpo", "--preferences", "preferences/pairs.jsonl", "--out", "run"],
        ["reward", "train", "--data", "preferences/pairs.jsonl", "--out", "reward"],
    ):
        assert main(command) == 2
        assert "lies outside" in capsys.readouterr().err
    main(["reward", "evaluate", "placebo", "--data", "hf:preferences"])
    assert not marker.exists()
    assert main(["data", "check", "preferences/pairs.jsonl", "--root", os.fspath(place)]) == 0
    assert "3 used" in capsys.readouterr().out
