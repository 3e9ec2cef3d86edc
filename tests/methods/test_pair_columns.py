"""What a file says beside the order of its pairs reaches the batch and the loss, or is told as not read."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmalign.adapters.image import ImageAdapter
from mmalign.data.aspects import of_aspect, one_of_each
from mmalign.data.pairs import Pair
from mmalign.data.ratings import Rating
from mmalign.errors import ConfigError, DataError
from mmalign.losses.preference import dpo_loss, hinge_dpo_loss
from mmalign.methods import METHODS, load_method
from mmalign.methods.base import Task
from mmalign.methods.configs import DiffusionDPOConfig, FlowDPOConfig
from mmalign.methods.denoising_dpo import DenoisingDPO
from mmalign.methods.pair_columns import PairColumns, columns_of, terms_of, unused_columns
from mmalign.methods.token_data import RowBatch
from mmalign.methods.token_dpo import TokenDPO
from tests.methods.conftest import N, latent_pairs, moved


def pair(**more: object) -> Pair:
    return replace(Pair("a", Path("a.png"), Path("b.png")), **more)  # type: ignore[arg-type]


PAIRS = [
    pair(margin=2.0, strength=0.5, annotator="Ann", aspect="look"),
    pair(strength=1.0, annotator="Bob"),
    pair(margin=1.0, annotator="Ann", aspect="fit"),
]


def test_columns_of_pairs_are_tensors_in_their_order() -> None:
    columns = columns_of(PAIRS)
    assert columns.margin is not None
    assert columns.strength is not None
    assert_close(columns.margin, torch.tensor([2.0, float("nan"), 1.0]), equal_nan=True)
    assert_close(columns.strength, torch.tensor([0.5, 1.0, float("nan")]), equal_nan=True)
    assert_close(columns.weight, torch.tensor([0.5, 1.0, 1.0]) / (2.5 / 3))
    assert columns.annotators == ("Ann", "Bob")
    assert columns.aspects == ("look", "fit")
    assert columns.annotator.tolist() == [0, 1, 0]  # type: ignore[union-attr]
    assert columns.aspect.tolist() == [0, -1, 1]  # type: ignore[union-attr]
    picked = columns.rows(torch.tensor([2, 0]))
    assert_close(picked.margin, torch.tensor([1.0, 2.0]))
    assert columns_of([pair(), pair()]) == PairColumns() or columns_of([pair()]).weight is None


def test_a_token_batch_carries_its_columns_into_its_parts() -> None:
    columns = columns_of(PAIRS)
    batch = RowBatch(torch.tensor([2, 0]), columns.rows(torch.tensor([2, 0])))
    assert_close(batch.part(1, 2).columns.margin, torch.tensor([2.0]))
    method = SimpleNamespace(config=SimpleNamespace(beta=1.0))
    sides = tuple(torch.tensor([[-1.0, -2.0], [-2.0, -2.0], [-1.5, -1.0], [-1.5, -3.0]]))
    terms = terms_of(TokenDPO.pair_loss, batch.columns, margin_scale=0.5)
    found = TokenDPO.pair_loss(method, *sides, **terms)  # type: ignore[arg-type]
    assert_close(
        found, dpo_loss(*sides, beta=1.0, margin=torch.tensor([0.5, 1.0]), weight=batch.columns.weight)
    )


@pytest.mark.parametrize(("margin_scale", "with_columns"), [(0.0, False), (0.0, True), (0.7, True)])
def test_margin_and_strength_reach_the_loss_of_denoisers(
    adapter: ImageAdapter, margin_scale: float, with_columns: bool
) -> None:
    moved(adapter)
    margin, strength = torch.linspace(0, 2, N), torch.linspace(0.25, 1, N)
    said = [pair(margin=m, strength=s) for m, s in zip(margin.tolist(), strength.tolist(), strict=True)]
    data = replace(latent_pairs(adapter), columns=columns_of(said) if with_columns else PairColumns())
    flow = adapter.generator.timesteps.kind == "flow_prediction"
    config = (FlowDPOConfig if flow else DiffusionDPOConfig)(margin_scale=margin_scale, beta=20.0)
    method = load_method(config.name)(config, Task(adapter, data=data))
    batch = method.batch(0, size=4, seed=3)
    loss, metrics = method.loss(batch)

    log_prob = method.log_prob(batch)
    with torch.no_grad(), adapter.generator.weights("reference"):
        reference = method.log_prob(batch)
    sides = [side[:4] for side in (*log_prob.chunk(2), *reference.chunk(2))]
    logits = 20.0 * ((sides[0] - sides[2]) - (sides[1] - sides[3]))
    weight = strength[batch.rows] / strength.mean() if with_columns else torch.ones(4)
    lead = margin_scale * margin[batch.rows]
    assert_close(loss, (weight * -torch.nn.functional.logsigmoid(logits - lead)).mean(), rtol=1e-4, atol=1e-6)
    # Two halves are the whole: the weights' mean is that of the file, and not of a micro-batch.
    halves = [method.loss(batch.part(k, k + 2))[0] for k in (0, 2)]
    assert_close(loss, torch.stack(halves).mean(), rtol=1e-4, atol=1e-6)
    assert set(metrics) >= {"accuracy", "margin"}


def test_a_fresh_policy_starts_where_the_columns_say(adapter: ImageAdapter) -> None:
    data = replace(latent_pairs(adapter), columns=columns_of([pair(margin=1.0, strength=0.5)] * N))
    flow = adapter.generator.timesteps.kind == "flow_prediction"
    config = (FlowDPOConfig if flow else DiffusionDPOConfig)(margin_scale=2.0)
    method = load_method(config.name)(config, Task(adapter, data=data))
    method.check_start(size=4, seed=0)
    loss, _ = method.loss(method.batch(0, size=4, seed=0))
    assert_close(loss.detach(), torch.nn.functional.softplus(torch.tensor(2.0)), rtol=1e-5, atol=1e-6)


def other_loss(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: Tensor
) -> Tensor:
    return hinge_dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta=float(beta[0]))


def test_what_a_loss_does_not_name_it_is_not_given_and_that_is_said() -> None:
    columns = columns_of(PAIRS)
    assert terms_of(other_loss, columns, margin_scale=1.0) == {}
    assert unused_columns(other_loss, columns, margin_scale=1.0) == [
        "the column margin is not read by this loss",
        "the column strength is not read by this loss",
    ]
    assert unused_columns(DenoisingDPO.pair_loss, columns, margin_scale=0.0) == [
        "the column margin is not read by this loss (--method.margin-scale reads it)"
    ]
    assert unused_columns(DenoisingDPO.pair_loss, columns, margin_scale=1.0) == []
    assert unused_columns(other_loss, PairColumns(), margin_scale=0.0) == []


@pytest.mark.parametrize("name", ["flow_dpo", "diffusion_dpo", "token_dpo"])
@pytest.mark.parametrize("scale", [-0.1, float("nan"), float("inf")])
def test_a_scale_of_margins_is_a_number_of_at_least_0(name: str, scale: float) -> None:
    with pytest.raises(ConfigError, match="margin_scale"):
        METHODS[name][0](**{"margin_scale": scale})


def test_several_aspects_ask_for_one() -> None:
    path = Path("pairs.jsonl")
    assert of_aspect([pair(), pair()], None, path) == [pair(), pair()]
    assert of_aspect(PAIRS, "look", path) == PAIRS[:1]
    assert of_aspect(PAIRS, "overall", path) == PAIRS[1:2]
    assert of_aspect(PAIRS, "all", path) == PAIRS
    with pytest.raises(
        ConfigError, match=r"has the aspects look, overall, fit, .* --aspect NAME, or --aspect all"
    ):
        of_aspect(PAIRS, None, path)
    with pytest.raises(DataError, match=r"no aspect is called 'lok'. Did you mean 'look'"):
        of_aspect(PAIRS, "lok", path)


def test_a_sample_that_many_people_rated_counts_once_with_their_mean() -> None:
    one = Rating("a", Path("a.png"), 1.0, annotator="Ann")
    other = Rating("a", Path("b.png"), 5.0, annotator="Ann")
    assert one_of_each([one, other, replace(one, score=4.0, annotator="Bob")]) == [
        replace(one, score=2.5, annotator=None),
        other,
    ]
