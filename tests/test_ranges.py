"""Every number of every settings class has a range that is said beside it, and what lies outside is refused by name."""

import dataclasses
import importlib
import math
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest

import mmalign.cli
from mmalign.cli.options import parse
from mmalign.errors import ConfigError
from mmalign.methods import METHODS, configs
from mmalign.ranges import MOST_SEED, NumberField, Range, check_ranges, number_fields
from mmalign.training.recipe import EvaluationConfig, SamplingConfig, TrainConfig, load_recipe

COMMANDS = {
    "AdaptCommand": "--reward r --data d --out o",
    "AgreementCommand": "f",
    "EvaluateCommand": "r --data d",
    "ExportCommand": "r --to peft",
    "GenerateCommand": "m --out o --prompt p",
    "LabelCommand": "s --out o --mode ranking",
    "MergeCommand": "a b --out o --method linear",
    "MeshCommand": "v --out o.glb",
    "OveroptimiseCommand": "s --proxy a --true b --out o.json",
    "PairsCommand": "s --out o.parquet",
    "ReportCommand": "r --serve",
    "ScoreCommand": "p --reward placebo",
    "SelectCommand": "s --select 3 --out o.parquet --strategy random",
    "ServeCommand": "--reward placebo",
    "TrainCommand": "--data d --out o",
}
"""The least that each command with a number is called with."""
SEVERAL_RUNS = {"weights": (1.0,)}


def command_classes() -> Iterator[type]:
    for module in pkgutil.iter_modules(mmalign.cli.__path__):
        for name, value in vars(importlib.import_module(f"mmalign.cli.{module.name}")).items():
            if name.endswith("Command") and value.__module__ == f"mmalign.cli.{module.name}":
                yield value


def settings() -> Iterator[Any]:
    """One whole object of every settings class."""
    yield from (config() for config, _ in METHODS.values())
    yield from (TrainConfig(), SamplingConfig(), EvaluationConfig(), load_recipe("image/flow_dpo"))
    yield from (configs.OwnSamples(), configs.OwnPairs(), configs.OwnDemonstrations())
    for cls in command_classes():
        if number_fields(cls):
            yield parse(cls, COMMANDS[cls.__name__].split(), prog="test")


def numbers_of(one: object) -> tuple[NumberField, ...]:
    cls: type = type(one)
    return number_fields(cls)


ALL = {
    type(one).__qualname__ + ("" if type(one).__name__ != "TrainCommand" else "s"): one for one in settings()
}
FIELDS = [
    pytest.param(one, field, id=f"{name}.{field.name}")
    for name, one in ALL.items()
    for field in numbers_of(one)
]


def outside(field: NumberField) -> Iterator[Any]:
    """What is just outside of a field's range, and what is no number of any range."""
    limits = field.range
    assert limits is not None
    yield from (math.nan, math.inf, -math.inf)
    if field.whole:
        yield from (2**64, -(2**64), 10**400, 1.5, True)
    step = 1 if field.whole else 1e-9
    for limit, to in ((limits.least, -step), (limits.most, step)):
        if limit is not None:
            yield type(step)(limit) + to
    yield from (limit for limit in (limits.above, limits.below) if limit is not None)


def test_all_settings_are_found() -> None:
    assert {cls.__name__ for cls in command_classes() if number_fields(cls)} == set(COMMANDS)
    assert len(ALL) == len(METHODS) + 7 + len(COMMANDS)
    assert len(FIELDS) > 190


@pytest.mark.parametrize(("one", "field"), FIELDS)
def test_a_number_outside_its_range_is_refused_by_name(one: Any, field: NumberField) -> None:
    assert field.range is not None, f"{field.name} has no range"
    spellings = (field.name, field.name.replace("_", "-"))
    for value in outside(field):
        with pytest.raises(ConfigError) as caught:
            dataclasses.replace(one, **{field.name: (value,) if field.several else value})
        assert any(f"{spelling} = " in str(caught.value) for spelling in spellings), (
            value,
            str(caught.value),
        )


def test_the_ends_of_a_range_are_inside() -> None:
    assert TrainConfig(seed=MOST_SEED).seed == MOST_SEED
    assert TrainConfig(learning_rate=1.0).learning_rate == 1
    assert configs.DRaFTConfig(rollout_steps=1).rollout_steps == 1
    assert configs.ReFLConfig(first_share=0.0).first_share == 0
    assert SamplingConfig(guidance=1.0, steps=None).guidance == 1


def test_the_message_says_the_field_the_value_and_the_range() -> None:
    for change, message in (
        (
            {"max_grad_norm": 0.0},
            "train.max_grad_norm = 0.0: expected a positive number; a large one, such as 1e6",
        ),
        ({"max_grad_norm": -1.0}, "train.max_grad_norm = -1.0: expected a positive number"),
        ({"seed": -1}, f"train.seed = -1: expected 0 to {MOST_SEED}"),
        ({"seed": 2**64}, f"train.seed = 18446744073709551616: expected 0 to {MOST_SEED}"),
        ({"steps": 2**40}, "train.steps = 1099511627776: expected at least 1 and at most 2147483647"),
        ({"steps": 1.5}, "train.steps = 1.5: expected a whole number"),
        ({"learning_rate": math.inf}, "train.learning_rate = inf: expected a finite number"),
    ):
        with pytest.raises(ConfigError) as caught:
            TrainConfig(**change)
        assert message in str(caught.value)
    with pytest.raises(ConfigError, match=r"method\.guidance = 0\.0: expected at least 1; 1 is none"):
        configs.FlowGRPOConfig(guidance=0.0)


def test_a_field_without_a_range_is_still_finite() -> None:
    @dataclasses.dataclass
    class Loose:
        share: float = 0.5

    check_ranges(Loose(), place="")
    with pytest.raises(ConfigError, match=r"a\.share = nan: expected a finite number"):
        check_ranges(Loose(math.nan), place="a.")
    assert number_fields(Loose)[0].range is None
    assert str(Range(above=0, most=1)) == "above 0 and at most 1"


def test_help_shows_the_range(capsys: pytest.CaptureFixture[str]) -> None:
    from mmalign.cli import align, generate

    for main, arguments, shown in (
        (
            align.main,
            ["image/flow_dpo", "--help"],
            ("--train.max-grad-norm FLOAT (a positive number)", "--rounds INT"),
        ),
        (
            generate.main,
            ["--help"],
            ("--n INT (at least 1)", "--guide-scales [FLOAT [FLOAT ...]] (at least 0)"),
        ),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        said = " ".join(capsys.readouterr().out.split())
        assert all(text in said for text in shown), said
