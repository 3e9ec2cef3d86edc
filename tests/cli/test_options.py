"""Options that are given twice: refused where one value counts, and several where several do, in either spelling."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mmalign.cli import generate, reward, serve
from mmalign.cli.align import parse_recipe
from mmalign.cli.generate import GenerateCommand
from mmalign.cli.merge import MergeCommand
from mmalign.cli.options import parse
from mmalign.cli.reward import EvaluateCommand
from mmalign.cli.score import ScoreCommand
from mmalign.cli.serve import ServeCommand
from mmalign.errors import ConfigError, MmalignError

NAME = "image/flow_dpo"


@pytest.mark.parametrize(
    "options",
    [
        "--reward placebo --reward sharpness:2",
        "--reward placebo sharpness:2",
        "--reward=placebo --reward=sharpness:2",
        "--reward placebo --train.steps 3 --reward sharpness:2",
    ],
)
def test_rewards_of_a_recipe_are_all_those_that_are_named(options: str) -> None:
    assert parse_recipe(NAME, options.split()).reward == ("placebo", "sharpness:2")


@pytest.mark.parametrize(
    "options", ["--reward a --reward b", "--reward a b", "--reward=a --reward=b", "--reward a --reward=b"]
)
def test_every_command_takes_several_values_in_either_way(options: str) -> None:
    both = options.split()
    assert parse(ScoreCommand, ["p.png", *both], prog="test").reward == ("a", "b")
    drawn = parse(
        GenerateCommand, ["m", "--out", "o", "--prompt", "p", "--guide", "reward", *both], prog="test"
    )
    assert drawn.reward == ("a", "b")
    data = [part.replace("--reward", "--data") for part in both]
    assert parse(EvaluateCommand, ["r", *data], prog="test").data == (Path("a"), Path("b"))


def test_several_numbers_may_be_negative_and_stand_apart() -> None:
    command = ["x", "y", "--out", "o", "--method", "linear", "--weights", "1", "--weights", "-2"]
    assert parse(MergeCommand, command, prog="test").weights == (1.0, -2.0)


def test_a_name_before_its_files_is_one_name() -> None:
    command = parse(ScoreCommand, ["--reward", "a", "p.png", "q.png"], prog="test")
    assert (command.reward, command.paths) == (("a",), (Path("p.png"), Path("q.png")))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ("--train.steps 3 --train.steps 4", "--train.steps"),
        ("--train.batch-size 16 --train.batch_size 16", "--train.batch-size"),
        ("--train.seed=1 --train.seed 2", "--train.seed"),
        ("--out a --model embedded/tones --out=b", "--out"),
        ("--train.park-encoders --train.no-park-encoders", "--train.park-encoders"),
        ("--method.own.prompts 3 --method.own.prompts 3", "--method.own.prompts"),
    ],
)
def test_an_option_of_one_value_is_given_once(options: str, name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} is given twice; leave one of them out$"):
        parse_recipe(NAME, options.split())


@pytest.mark.parametrize(
    ("cls", "line", "name"),
    [
        (GenerateCommand, "m --out o --prompt p --lora A --lora B", "--lora"),
        (ServeCommand, "--reward a --reward b", "--reward"),
        (ScoreCommand, "p --reward a --batch-size 2 --batch_size 3", "--batch-size"),
    ],
)
def test_so_it_is_in_every_command(cls: type, line: str, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is given twice"):
        parse(cls, line.split(), prog="test")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            NAME,
            "--evaluation.every 0 --evaluation.glance 9",
            "--evaluation.glance would do nothing: evaluation.every is 0",
        ),
        (NAME, "--pairs-per-round 3", "--pairs-per-round would do nothing: it is of --labels"),
        (
            NAME,
            "--preferences p.jsonl --method.own.group-size 6",
            "--method.own.group-size would do nothing: --preferences",
        ),
        (
            "image/rwr",
            "--ratings p.jsonl --method.own.prompts 6",
            "--method.own.prompts would do nothing: --ratings",
        ),
        (
            "image/rwr",
            "--method.weighting best --method.temperature 2",
            "--method.temperature would do nothing",
        ),
        (
            "image/d3po",
            "--method.ratio-guidance outside",
            "--method.ratio-guidance would do nothing: method.guidance is 1",
        ),
        (
            "image/draft",
            "--method.last-steps 1 --method.truncation random",
            "--method.truncation would do nothing",
        ),
        (
            "image/d3po",
            "--labels human --reward placebo",
            "--reward would do nothing: with --labels human people judge",
        ),
        ("speech/reward_distillation", "--train.lora-rank 4", "--train.lora-rank would do nothing"),
        (
            NAME,
            "--sampling.temperature 0.5",
            "sampling.temperature would be ignored: flow_dpo is a method of denoisers",
        ),
        (NAME, "--sampling.fps 8", "sampling.fps is of video, and this recipe makes image"),
        (NAME, "--sampling.duration-s 2", "sampling.duration_s is of audio, and this recipe makes image"),
        (
            "speech/flow_dpo",
            "--sampling.steps 8",
            "sampling.steps would be ignored: token_dpo draws token by token",
        ),
        ("speech/flow_dpo", "--sampling.vae-tiling", "sampling.vae_tiling would be ignored"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(name: str, options: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_recipe(name, options.split())
    assert message in str(caught.value)


def test_the_same_option_is_taken_where_it_does_something() -> None:
    assert parse_recipe(NAME, ["--evaluation.glance", "9"]).evaluation.glance == 9
    assert parse_recipe(NAME, ["--evaluation.every", "0"]).evaluation.glance == 128
    assert parse_recipe("image/rwr", ["--method.temperature", "2"]).method.temperature == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("main", "line", "message"),
    [
        (
            generate.main,
            "embedded/tones --guide best_of_n --reward placebo --reward shapes-truth",
            "takes image, and model",
        ),
        (
            generate.main,
            "embedded/shapes-flow --lora {here}/lora",
            "lora: no such folder; a run has one, RUN/lora",
        ),
        (generate.main, "embedded/nothing", "no embedded model is called 'embedded/nothing'"),
        (reward.main, "train --data {here}/none.csv", "none.csv: no such file; give a table with --data"),
        (
            reward.main,
            "train --data {here}/a.csv --backbone embedded/shapes-clp",
            "Did you mean 'embedded/shapes-clip'",
        ),
        (serve.main, "--reward pickscore-v1", "its weights"),
    ],
)
def test_other_commands_look_before_they_load(
    main: Callable[[Sequence[str]], int], line: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("prompt,chosen,rejected\n")
    of_commands: dict[Any, str] = {serve.main: "", generate.main: " --prompt p --out {here}/out"}
    more = of_commands.get(main, " --out {here}/out")
    with pytest.raises(MmalignError, match=message):
        main((line + more).format(here=tmp_path).split())
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
