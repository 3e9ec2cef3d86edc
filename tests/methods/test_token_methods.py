"""The methods on tokens, on a small language model with a real codec: where they start, and what they move."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import ByT5Tokenizer

from mmalign.adapters.speech import SpeechAdapter
from mmalign.adapters.speech_codec import SpeechCodec
from mmalign.errors import ConfigError, ShapeError
from mmalign.generators import lora
from mmalign.generators.token_layouts import IGNORED, stack_tokens
from mmalign.likelihoods import token_log_prob
from mmalign.methods import METHODS, configs, load_method
from mmalign.methods.base import Method, Task
from mmalign.methods.latents import LatentPairs, LatentSamples
from mmalign.methods.token_credit import part_ends, prefix_token_rewards
from mmalign.rewards.base import Score
from mmalign.rewards.cards import load_reward
from mmalign.rewards.rows import without_score
from tests.generators.small_token_models import CODES, END, FIRST, llama
from tests.methods import constrained

N, T = 6, 5
SIZE = 4
PROMPTS = ["go left", "stop", "a"]

# Every method at its smallest.
SMALL: dict[str, configs.MethodConfig] = {
    "token_d3po": configs.TokenD3POConfig(frames=T, clamp=0.5),
    "token_dpo": configs.TokenDPOConfig(),
    "token_dro": configs.TokenDROConfig(frames=T, updates_per_rollout=2),
    "token_grpo": configs.TokenGRPOConfig(frames=T, group_size=2, updates_per_rollout=2),
    "token_reward_distillation": configs.TokenRewardDistillationConfig(
        frames=T, group_size=2, updates_per_rollout=2, teacher_steps=0, reward_weight=1.0
    ),
    "token_rwr": configs.TokenRWRConfig(),
}


def test_every_method_on_tokens_is_tested() -> None:
    assert sorted(SMALL) == sorted(name for name in METHODS if name.startswith("token_"))
    assert all(METHODS[name][0] is type(config) for name, config in SMALL.items())


@pytest.fixture(scope="module")
def made() -> SpeechAdapter:
    codec = SpeechCodec(torch.randn(CODES, 64, generator=torch.Generator().manual_seed(0)) - 4)
    adapter = SpeechAdapter(llama(), ByT5Tokenizer(), codec, first_code=FIRST, end_id=END)
    adapter.generator.attach_lora(rank=2)
    return adapter


@pytest.fixture
def adapter(made: SpeechAdapter) -> Iterator[SpeechAdapter]:
    """The policy is the reference before and after."""
    before = [p.detach().clone() for p in lora.trainable(made.generator.model)]
    yield made
    for parameter, value in zip(lora.trainable(made.generator.model), before, strict=True):
        parameter.data.copy_(value)
        parameter.grad = None


@pytest.fixture
def task(adapter: SpeechAdapter) -> Task:
    return Task(adapter, prompts=PROMPTS, reward=load_reward("placebo"))


def moved(adapter: SpeechAdapter) -> None:
    """Make the policy another network than the reference."""
    for seed, parameter in enumerate(lora.trainable(adapter.generator.model)):
        random = torch.Generator().manual_seed(seed)
        parameter.data.copy_(0.2 * torch.randn(parameter.shape, generator=random))


def tokens(seed: int) -> Tensor:
    """Samples of different lengths, each with its end."""
    random = torch.Generator().manual_seed(seed)
    made = torch.randint(CODES, (N, T, 1), generator=random)
    for row, length in enumerate(torch.randint(1, T, (N,), generator=random).tolist()):
        made[row, length], made[row, length + 1 :] = CODES, IGNORED
    return made


def pairs(adapter: SpeechAdapter) -> LatentPairs:
    conditioning = adapter.generator.condition(PROMPTS)
    return LatentPairs(tokens(0), tokens(1), conditioning, torch.tensor([0, 1, 2, 2, 1, 0]), PROMPTS)


def samples(adapter: SpeechAdapter, *, scored: bool = True) -> LatentSamples:
    conditioning = adapter.generator.condition(PROMPTS)
    score = torch.tensor([0.0, 1.0, 5.0, 2.0, 3.0, 4.0]) if scored else None
    return LatentSamples(tokens(2), conditioning, torch.tensor([0, 1, 2, 2, 1, 0]), PROMPTS, score)


@pytest.fixture(params=sorted(SMALL))
def build(request: pytest.FixtureRequest, task: Task, adapter: SpeechAdapter) -> Callable[..., Method]:
    def method(**changes: Any) -> Method:
        config = replace(SMALL[request.param], **changes)
        data: Any = {
            "pairs": lambda: pairs(adapter),
            "ratings": lambda: samples(adapter),
            "demonstrations": lambda: samples(adapter, scored=False),
            "prompts": lambda: None,
        }[config.source]()
        made: Method = load_method(request.param)(config, replace(task, data=data))
        return made

    return method


def gradients(adapter: SpeechAdapter, loss: Tensor) -> dict[str, Tensor]:
    adapter.generator.model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in adapter.generator.model.named_parameters() if p.grad is not None}


# --- what holds of every method ---------------------------------------------------------------------------------------


def test_a_step_moves_the_lora_and_nothing_else(build: Callable[..., Method], adapter: SpeechAdapter) -> None:
    method = build()
    method.check_start(size=SIZE, seed=0)
    loss, metrics = method.loss(method.batch(0, size=SIZE, seed=0))
    assert loss.shape == ()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(torch.as_tensor(value)) for value in metrics.values())
    assert all(not torch.as_tensor(value).requires_grad for value in metrics.values())
    found = gradients(adapter, loss)
    assert all("lora" in name for name in found)
    assert max(float(g.abs().max()) for g in found.values()) > 0


def test_parts_of_a_batch_add_up_to_its_gradient(
    build: Callable[..., Method], adapter: SpeechAdapter
) -> None:
    method: Any = build()
    moved(adapter)
    batch = method.batch(0, size=SIZE, seed=0)
    whole = gradients(adapter, method.loss(batch)[0])
    cut = len(batch) // 2
    parts = [batch.part(0, cut), batch.part(cut, len(batch))]
    summed = gradients(adapter, torch.stack([method.loss(p)[0] * len(p) / len(batch) for p in parts]).sum())
    largest = max(float(g.abs().max()) for g in whole.values())
    assert largest > 0
    for name, gradient in whole.items():
        assert_close(summed[name], gradient, rtol=1e-3, atol=1e-3 * largest)


def test_a_step_costs_what_its_settings_say(build: Callable[..., Method], adapter: SpeechAdapter) -> None:
    method: Any = build()
    before = adapter.generator.denoiser_passes
    for step in range(method.steps_per_rollout):
        method.loss(method.batch(step, size=SIZE, seed=0))
    spent = adapter.generator.denoiser_passes - before
    assert spent == sum(method.config.passes(SIZE, guided=True)) * method.steps_per_rollout


def test_a_batch_depends_on_step_seed_and_weights_alone(
    build: Callable[..., Method], adapter: SpeechAdapter
) -> None:
    moved(adapter)
    first = build()
    torch.manual_seed(1)
    losses = [float(first.loss(first.batch(step, size=SIZE, seed=3))[0].detach()) for step in range(3)]
    again = build()
    torch.manual_seed(2)
    for step in (2, 0):
        assert float(again.loss(again.batch(step, size=SIZE, seed=3))[0].detach()) == losses[step]
    assert float(again.loss(again.batch(0, size=SIZE, seed=4))[0].detach()) != losses[0]


def test_a_step_lowers_its_own_loss(build: Callable[..., Method], adapter: SpeechAdapter) -> None:
    method = build()
    batch = method.batch(0, size=SIZE, seed=0)
    before, _ = method.loss(batch)
    found = gradients(adapter, before)
    norm = float(torch.stack([g.square().sum() for g in found.values()]).sum().sqrt())
    for parameter in lora.trainable(adapter.generator.model):
        assert parameter.grad is not None
        parameter.data -= 1e-2 / norm * parameter.grad
    with torch.no_grad():
        after, _ = method.loss(batch)
    assert after < before


# --- what each method means -------------------------------------------------------------------------------------------


def test_dpo_starts_at_log_2_with_the_gradient_of_its_two_sides(adapter: SpeechAdapter, task: Task) -> None:
    data = pairs(adapter)
    method: Any = load_method("token_dpo")(SMALL["token_dpo"], replace(task, data=data))
    batch = method.batch(0, size=N, seed=0)
    loss, metrics = method.loss(batch)
    assert_close(loss, torch.tensor(2.0).log())
    assert float(metrics["accuracy"]) == 0.5
    found = gradients(adapter, loss)

    def likelihood(side: Tensor) -> Tensor:
        return token_log_prob(adapter.generator, side, data.conditioning.rows(data.prompt)).sum((1, 2)).mean()

    # -beta * sigmoid(0) * (grad log p(chosen) - grad log p(rejected))
    expected = gradients(adapter, -0.1 * 0.5 * (likelihood(data.chosen) - likelihood(data.rejected)))
    for name, gradient in expected.items():
        assert_close(found[name], gradient, atol=1e-6, rtol=1e-3)


def test_dpo_ignores_padding(adapter: SpeechAdapter, task: Task) -> None:
    moved(adapter)
    data = pairs(adapter)
    longer = replace(
        data,
        chosen=stack_tokens([data.chosen], frames=T + 3),
        rejected=stack_tokens([data.rejected], frames=T + 3),
    )
    losses = []
    for given in (data, longer):
        method: Any = load_method("token_dpo")(SMALL["token_dpo"], replace(task, data=given))
        losses.append(method.loss(method.batch(0, size=N, seed=0))[0])
    assert_close(*losses, atol=1e-5, rtol=1e-5)
    with pytest.raises(ShapeError, match="stack_tokens pads tokens"):
        replace(data, chosen=longer.chosen)


@pytest.mark.parametrize("name", ["token_dpo", "token_rwr"])
def test_what_is_preferred_becomes_likelier(name: str, adapter: SpeechAdapter, task: Task) -> None:
    data: Any = pairs(adapter) if name == "token_dpo" else samples(adapter)
    config = SMALL[name] if name == "token_dpo" else configs.TokenRWRConfig(weighting="best")
    method: Any = load_method(name)(config, replace(task, data=data))
    if name == "token_dpo":
        good, bad, prompt = data.chosen, data.rejected, data.prompt
    else:  # of each prompt's two samples, the one with the higher score
        good, bad, prompt = data.clean[[5, 4, 2]], data.clean[[0, 1, 3]], torch.arange(3)

    @torch.no_grad()
    def likelihood(side: Tensor) -> float:
        return float(token_log_prob(adapter.generator, side, data.conditioning.rows(prompt)).sum())

    before = likelihood(good), likelihood(bad)
    optimizer = torch.optim.Adam(lora.trainable(adapter.generator.model), lr=1e-2)
    for step in range(8):
        optimizer.zero_grad()
        method.loss(method.batch(step, size=N, seed=0))[0].backward()
        optimizer.step()
    gain = likelihood(good) - before[0]
    assert gain > 0.5
    assert gain > likelihood(bad) - before[1]


def test_grpo_begins_with_the_policy_gradient(adapter: SpeechAdapter, task: Task) -> None:
    config = configs.TokenGRPOConfig(frames=T, group_size=2, kl_weight=0.0)
    method: Any = load_method("token_grpo")(config, task)
    batch = method.batch(0, size=SIZE, seed=0)
    loss, metrics = method.loss(batch)
    assert_close(float(loss), float(-batch.advantage.mean()), atol=1e-5, rtol=0)  # 0 in groups of two
    assert float(metrics["clip_fraction"]) == 0
    found = gradients(adapter, loss)
    trajectory = batch.trajectory
    rows, mask = batch.sample, trajectory.mask[batch.sample].flatten(1)
    log_prob = token_log_prob(adapter.generator, trajectory.tokens[rows], trajectory.conditioning.rows(rows))
    mean = (log_prob.flatten(1) * mask).sum(1) / mask.sum(1)
    expected = gradients(adapter, -(batch.advantage * mean).mean())
    for name, gradient in expected.items():
        assert_close(found[name], gradient, atol=1e-5, rtol=1e-3)


def test_grpo_credits_each_part_with_what_it_added(adapter: SpeechAdapter, task: Task) -> None:
    config = configs.TokenGRPOConfig(frames=T, group_size=2, kl_weight=0.0, credit="prefix", credit_parts=2)
    method: Any = load_method("token_grpo")(config, task)
    batch = method.batch(0, size=SIZE, seed=0)
    drawn = method.rollout(0, size=SIZE, seed=0)
    tokens, scores = drawn.trajectory.tokens, drawn.scores.flatten()
    rewards = prefix_token_rewards(task, tokens, drawn.prompts, scores, parts=2)
    assert_close(rewards.sum(1), scores.double(), atol=1e-6, rtol=0)
    assert (rewards[~drawn.trajectory.mask.flatten(1)] == 0).all()
    # The first part has the reward of the beginning alone.
    frames = int((tokens[0] != IGNORED).any(1).sum())
    begun = tokens[:1].clone()
    begun[:, part_ends(frames, 2)[0] + 1 :] = IGNORED
    assert_close(
        rewards[0, : part_ends(frames, 2)[0] + 1].sum(), task.score(begun, drawn.prompts[:1])[0].double()
    )
    assert batch.advantage.shape == drawn.trajectory.mask.flatten(1)[batch.sample].shape
    found = gradients(adapter, method.loss(batch)[0])
    rows, mask = batch.sample, drawn.trajectory.mask[batch.sample].flatten(1)
    log_prob = token_log_prob(adapter.generator, tokens[rows], drawn.trajectory.conditioning.rows(rows))
    expected = gradients(
        adapter, -((batch.advantage * log_prob.flatten(1) * mask).sum(1) / mask.sum(1)).mean()
    )
    for name, gradient in expected.items():
        assert_close(found[name], gradient, atol=1e-5, rtol=1e-3)


def test_a_beginning_without_a_score_adds_nothing(adapter: SpeechAdapter) -> None:
    class Unsure:
        """Scores nothing that is shorter than the whole."""

        card = load_reward("placebo").card

        def score(self, samples: Any) -> Score:
            return without_score(["too short"] * len(samples))

    whole = torch.tensor([2.0, -1.0])
    drawn = tokens(0)[:2]
    rewards = prefix_token_rewards(Task(adapter, reward=Unsure()), drawn, PROMPTS[:2], whole, parts=3)
    for row, line in enumerate(drawn[..., 0]):
        ends = part_ends(int((line != IGNORED).sum()), 3)
        before = ends[-2] + 1 if len(ends) > 1 else 0
        assert (rewards[row, :before] == 0).all()
        assert_close(rewards[row, before:].sum(), whole[row].double())


def test_grpo_means_differ_in_what_length_weighs(task: Task) -> None:
    terms = torch.tensor([[1.0, 1.0], [3.0, 9.0]])
    mask = torch.tensor([[True, True], [True, False]])
    for token_mean, expected in (("grpo", (1 + 3) / 2), ("dr_grpo", (2 + 3) / 2 / 2)):
        config = configs.TokenGRPOConfig(frames=T, token_mean=token_mean)  # type: ignore[arg-type]
        method: Any = load_method("token_grpo")(config, task)
        assert float(method.mean(terms, mask)) == expected


def test_grpo_is_pulled_back_by_its_kl(adapter: SpeechAdapter, task: Task) -> None:
    free, held = (
        load_method("token_grpo")(configs.TokenGRPOConfig(frames=T, group_size=2, kl_weight=w), task)
        for w in (0, 1)
    )
    batch = held.batch(0, size=SIZE, seed=0)
    moved(adapter)
    apart, metrics = held.loss(batch)
    assert float(metrics["kl"]) > 0
    assert_close(apart - free.loss(batch)[0], metrics["kl"], atol=1e-5, rtol=1e-4)


def test_d3po_starts_at_log_2_and_leaves_the_longer_tail_out(adapter: SpeechAdapter, task: Task) -> None:
    method: Any = load_method("token_d3po")(SMALL["token_d3po"], task)
    batch = method.batch(0, size=SIZE, seed=0)
    loss, _ = method.loss(batch)
    assert_close(loss, torch.tensor(2.0).log())
    # The chosen side is the one that the reward scores higher.
    scores = method.rollout(0, size=SIZE, seed=0).scores.flatten()
    assert (scores[batch.chosen] > scores[batch.rejected]).all()
    # At a tail that one side alone has, no token counts: other tokens there change nothing.
    moved(adapter)
    trajectory = batch.trajectory
    full = torch.randint(CODES, trajectory.tokens.shape, generator=torch.Generator().manual_seed(3))
    cut = full.clone()
    cut[batch.rejected, 2:] = IGNORED
    other = cut.clone()
    other[batch.chosen, 2:] = (other[batch.chosen, 2:] + 1) % CODES
    losses = [
        method.loss(replace(batch, trajectory=replace(trajectory, tokens=t)))[0] for t in (cut, other, full)
    ]
    assert_close(losses[0], losses[1])
    assert abs(float(losses[0] - losses[2])) > 1e-6


def test_dro_starts_at_its_margin_with_the_gradient_of_imitation(adapter: SpeechAdapter, task: Task) -> None:
    data = samples(adapter, scored=False)
    method: Any = load_method("token_dro")(SMALL["token_dro"], replace(task, data=data))
    batch = method.batch(0, size=SIZE, seed=0)
    loss, metrics = method.loss(batch)
    assert_close(loss, torch.tensor(0.001), atol=1e-6, rtol=0)
    assert float(metrics["own_drift"]) == 0
    found = gradients(adapter, loss)
    expert, mask = data.clean[batch.rows], (data.clean[batch.rows] != IGNORED).flatten(1)
    log_prob = token_log_prob(
        adapter.generator, expert, data.conditioning.rows(data.prompt[batch.rows])
    ).flatten(1)
    expected = gradients(adapter, (-(log_prob * mask).sum(1) / mask.sum(1)).mean())
    for name, gradient in expected.items():
        assert_close(found[name], gradient, atol=1e-5, rtol=1e-3)


def test_dro_keeps_its_snapshot_for_all_steps_of_a_rollout(adapter: SpeechAdapter, task: Task) -> None:
    method: Any = load_method("token_dro")(
        SMALL["token_dro"], replace(task, data=samples(adapter, scored=False))
    )
    drifts = []
    for step in (0, 1, 2):
        _, metrics = method.loss(method.batch(step, size=SIZE, seed=0))
        drifts.append(float(metrics["own_drift"]))
        if step == 0:
            moved(adapter)
    assert drifts[0] == 0
    assert drifts[1] > 1e-3  # the second step still knows the first's policy
    assert abs(drifts[2]) < 1e-6  # the third draws anew, from the policy as it is


def test_what_does_not_fit_is_refused(adapter: SpeechAdapter, task: Task) -> None:
    with pytest.raises(ConfigError, match="learns from preference pairs of tokens"):
        load_method("token_dpo")(SMALL["token_dpo"], replace(task, data=samples(adapter)))
    with pytest.raises(ConfigError, match="have no scores"):
        load_method("token_rwr")(SMALL["token_rwr"], replace(task, data=samples(adapter, scored=False)))
    endless: Any = SimpleNamespace(generator=adapter.generator)
    with pytest.raises(ConfigError, match="how long a sample may be"):
        load_method("token_grpo")(configs.TokenGRPOConfig(), replace(task, adapter=endless))
    with pytest.raises(ConfigError, match="give --prompts"):
        load_method("token_grpo")(SMALL["token_grpo"], replace(task, prompts=()))
    method: Any = load_method("token_d3po")(SMALL["token_d3po"], task)
    with pytest.raises(ConfigError, match=r"no whole groups of method\.group_size = 2"):
        method.batch(0, size=3, seed=0)
    for config, words in (
        (configs.TokenDPOConfig, {"beta": 0.0}),
        (configs.TokenGRPOConfig, {"group_size": 1}),
        (configs.TokenGRPOConfig, {"frames": 0}),
        (configs.TokenGRPOConfig, {"kl_weight": -1.0}),
        (configs.TokenD3POConfig, {"group_size": 1}),
        (configs.TokenRWRConfig, {"temperature": 0.0}),
    ):
        with pytest.raises(ConfigError, match=f"method.{next(iter(words))}"):
            config(**words)


def test_a_generator_of_another_family_is_refused(task: Task) -> None:
    class Other:
        generator = "a pipeline"

    with pytest.raises(ConfigError, match="the model is a str"):
        load_method("token_dpo")(SMALL["token_dpo"], replace(task, adapter=Other()))


# --- reward distillation ----------------------------------------------------------------------------------------------


@pytest.fixture
def student() -> SpeechAdapter:
    """A student of one of two layers, beside its teacher."""
    codec = SpeechCodec(torch.randn(CODES, 64, generator=torch.Generator().manual_seed(0)) - 4)
    adapter = SpeechAdapter(llama(), ByT5Tokenizer(), codec, first_code=FIRST, end_id=END)
    adapter.generator.attach_student(share=0.5)
    return adapter


def distillation(adapter: SpeechAdapter, **changes: Any) -> Any:
    config = replace(SMALL["token_reward_distillation"], **changes)
    task = Task(adapter, data=samples(adapter), prompts=PROMPTS, reward=load_reward("placebo"))
    return load_method("token_reward_distillation")(config, task)


def test_a_student_learns_from_the_teachers_samples_and_then_from_its_own(student: SpeechAdapter) -> None:
    method = distillation(student, teacher_steps=2)
    given = samples(student).clean
    first, later = (method.batch(step, size=SIZE, seed=0) for step in (1, 2))
    assert all(any((row == other).all() for other in given) for row in first.tokens)
    assert torch.equal(
        later.tokens, method.rollout(2, size=SIZE, seed=0).trajectory.tokens[method.shares(2, 2 * SIZE)]
    )
    # The two samples of a prompt: standardised to -1 and 1, each less the other.
    assert first.advantage.abs().allclose(torch.tensor(2.0), atol=1e-3)


def test_without_reward_a_student_comes_to_its_teacher(student: SpeechAdapter) -> None:
    method = distillation(student, teacher_steps=40, reward_weight=0.0)
    teacher = {name: p.clone() for name, p in student.generator.teacher.named_parameters()}
    optimizer = torch.optim.Adam(lora.trainable(student.generator.policy), lr=1e-2)
    distances = []
    for step in range(40):
        optimizer.zero_grad()
        loss, metrics = method.loss(method.batch(step, size=N, seed=0))
        loss.backward()
        optimizer.step()
        distances.append(float(metrics["distance"]))
        assert float(loss.detach()) == pytest.approx(distances[-1], abs=1e-6)
    assert distances[-1] < 0.3 * distances[0]
    assert all(torch.equal(p, teacher[n]) for n, p in student.generator.teacher.named_parameters())


def test_rewards_a_constant_apart_teach_alike(student: SpeechAdapter) -> None:
    data = samples(student)
    assert data.score is not None
    task = Task(student, data=data, prompts=PROMPTS, reward=load_reward("placebo"))
    moved_up = replace(task, data=replace(data, score=data.score + 7))
    small: Any = SMALL["token_reward_distillation"]
    config = replace(small, teacher_steps=1)
    losses = []
    for given in (task, moved_up):
        method: Any = load_method("token_reward_distillation")(config, given)
        losses.append(method.loss(method.batch(0, size=N, seed=0))[0])
    assert_close(*losses, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["token_d3po", "token_grpo", "token_reward_distillation"])
def test_multipliers_of_a_reward_follow_the_rollouts_and_resume(
    name: str, adapter: SpeechAdapter, tmp_path: Path
) -> None:
    config: Any = replace(SMALL[name], updates_per_rollout=2)  # type: ignore[call-arg]

    def method(reward: Any) -> Method:
        task = Task(adapter, prompts=PROMPTS, reward=reward)
        if name == "token_reward_distillation":
            task = replace(task, data=samples(adapter, scored=True))
        made: Method = load_method(name)(config, task)
        return made

    constrained.check(method, adapter.generator, tmp_path)
