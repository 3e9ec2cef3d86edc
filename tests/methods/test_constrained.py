"""Rewards that learn from rollouts, in every online method on denoisers; those on tokens are in test_token_methods."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.adapters.image import ImageAdapter
from mmalign.errors import ConfigError
from mmalign.methods import METHODS, load_method
from mmalign.methods.base import Task
from mmalign.methods.configs.online import GroupConfig
from mmalign.rewards.learning import learnt_state, load_learnt_state, reports
from tests.methods.constrained import check, constrained
from tests.methods.test_every_method import SMALL
from tests.methods.test_token_methods import SMALL as ON_TOKENS

JUDGED = ("d3po", "flow_grpo", "nft")
JUDGED_TOKENS = ("token_d3po", "token_grpo", "token_reward_distillation")


def test_every_method_that_has_its_rollouts_judged_is_tested() -> None:
    online = {name for name, (config, _) in METHODS.items() if issubclass(config, GroupConfig)}
    ranks_demonstrations = {"dro", "token_dro"}  # whose own samples nobody judges
    assert online - ranks_demonstrations == {*JUDGED, *JUDGED_TOKENS}
    assert {*JUDGED} < SMALL.keys()
    assert {*JUDGED_TOKENS} < ON_TOKENS.keys()


@pytest.mark.parametrize("name", JUDGED)
def test_multipliers_follow_the_rollouts_and_resume(
    name: str, task: Task, adapter: ImageAdapter, tmp_path: Path
) -> None:
    config: Any = replace(SMALL[name], updates_per_rollout=2)  # type: ignore[call-arg]
    check(lambda reward: load_method(name)(config, replace(task, reward=reward)), adapter.generator, tmp_path)


def test_what_was_learnt_is_of_one_reward(tmp_path: Path) -> None:
    reward = constrained(tmp_path)
    state = learnt_state(reward)
    assert {name: tensor.tolist() for name, tensor in state.items()} == {
        "reward/0/u": [0.0],
        "reward/0/speed": [0.0],
    }
    load_learnt_state(reward, {name: torch.ones(1) for name in state})
    assert reports(reward) == {"multiplier/placebo": pytest.approx(float(torch.ones(1).sigmoid()))}
    with pytest.raises(ConfigError, match="what another reward has learnt"):
        load_learnt_state(reward, {"reward/1/u": torch.ones(1)})
    assert learnt_state(None) == {}
