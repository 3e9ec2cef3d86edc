"""The token generator on transformers' own classes: likelihoods, samples, seeds, guidance, LoRA."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import BertConfig, BertModel, ByT5Tokenizer

from mmalign.errors import ConfigError, ShapeError, UnsupportedPipelineError
from mmalign.generators import lora
from mmalign.generators.token_causal import CausalTokens
from mmalign.generators.token_layouts import IGNORED
from mmalign.generators.tokens import TokenGenerator, TokenTrajectory, join_trajectories
from mmalign.likelihoods import token_log_prob
from mmalign.sampling.tokens import NEVER, TokenSampler
from tests.generators.small_token_models import CODES, FIRST, GUIDED, KINDS, generator, llama

PROMPTS = ["a", "two words", "and a longer one"]
SEEDS = [5, 6, 7]
FRAMES = 6


@pytest.fixture(scope="module")
def generators() -> dict[str, TokenGenerator]:
    return {}


@pytest.fixture
def tokens_of(generators: dict[str, TokenGenerator]) -> Any:
    """A generator of a kind; its LoRA changes nothing before and after."""

    def get(kind: str) -> TokenGenerator:
        if kind not in generators:
            generators[kind] = generator(kind)
            generators[kind].attach_lora(rank=2)
        return generators[kind]

    return get


@pytest.fixture(autouse=True)
def reset(generators: dict[str, TokenGenerator]) -> Iterator[None]:
    yield
    for known in generators.values():
        for name, parameter in known.model.named_parameters():
            if "lora_B" in name:
                parameter.data.zero_()
            parameter.grad = None


def moved(made: TokenGenerator) -> None:
    """Make the policy another network than the reference."""
    for seed, parameter in enumerate(lora.trainable(made.model)):
        random = torch.Generator().manual_seed(seed)
        parameter.data.copy_(0.5 * torch.randn(parameter.shape, generator=random))


def drawn(made: TokenGenerator, **options: Any) -> TokenTrajectory:
    conditioning = made.condition(PROMPTS, guidance=options.get("guidance"))
    return made.rollout(conditioning, seeds=SEEDS, frames=FRAMES, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollout_has_the_likelihoods_of_teacher_forcing(kind: str, tokens_of: Any) -> None:
    made = tokens_of(kind)
    moved(made)
    for options in ({}, {"temperature": 0.7, "top_k": 5, "top_p": 0.8}):
        trajectory = drawn(made, **options)
        again = token_log_prob(made, trajectory.tokens, trajectory.conditioning, sampler=trajectory.sampler)
        assert_close(again, trajectory.log_prob, atol=1e-4, rtol=0)
        assert (trajectory.log_prob[~trajectory.mask] == 0).all()
        assert (trajectory.log_prob[trajectory.mask] > NEVER / 2).all()
        # The model has a view of what comes next, so that this is more than the noise agreeing with itself.
        logits = made.logits(trajectory.tokens, trajectory.conditioning)[trajectory.mask]
        assert logits[logits > NEVER / 2].std() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_prompt_and_past_matter_and_the_future_does_not(kind: str, tokens_of: Any) -> None:
    made = tokens_of(kind)
    conditioning = made.condition(PROMPTS[1:] * 2)
    codes = torch.randint(
        1, 9, (1, FRAMES, made.layout.codebooks), generator=torch.Generator().manual_seed(0)
    )
    other = codes.clone()
    other[:, 3] = other[:, 3] % 8 + 1
    found = token_log_prob(made, torch.cat([codes, codes, other, other]), conditioning).detach()
    first, second, changed = found[0], found[1], found[2]
    assert (first - second).abs().max() > 1e-4  # another prompt
    for k, delay in enumerate(made.layout.delays):
        # A codebook that lags sees later frames of those that do not.
        seen = max(0, 3 - delay + min(made.layout.delays[:k], default=delay))
        assert_close(changed[:seen, k], first[:seen, k], atol=1e-4, rtol=0)
        assert (changed[4:, k] - first[4:, k]).abs().max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_padding_and_cache_change_nothing(kind: str, tokens_of: Any) -> None:
    made = tokens_of(kind)
    moved(made)
    whole = drawn(made)
    slow = drawn(made, use_cache=False)
    assert (slow.tokens == whole.tokens).all()
    assert_close(slow.log_prob, whole.log_prob, atol=1e-5, rtol=0)
    alone = made.condition(PROMPTS[:1])  # padded to itself, and not to the longest
    short = made.rollout(alone, seeds=SEEDS[:1], frames=FRAMES)
    length = short.tokens.shape[1]
    assert (short.tokens[0] == whole.tokens[0, :length]).all()
    assert_close(short.log_prob[0], whole.log_prob[0, :length], atol=1e-4, rtol=0)
    # Frames that end a sample early, beside a longer one.
    cut = whole.tokens.clone()
    cut[0, 3:] = IGNORED
    together = token_log_prob(made, cut, whole.conditioning)
    single = token_log_prob(made, cut[:1, :3], alone)
    assert_close(together[0, :3], single[0], atol=1e-4, rtol=0)
    assert (together[0, 3:] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_a_conditioning_are_its_samples(kind: str, tokens_of: Any) -> None:
    made = tokens_of(kind)
    whole = drawn(made)
    picked = made.rollout(
        whole.conditioning.rows(torch.tensor([2, 0])), seeds=[SEEDS[2], SEEDS[0]], frames=FRAMES
    )
    length = picked.tokens.shape[1]
    assert (picked.tokens == whole.tokens[[2, 0], :length]).all()
    with pytest.raises(ShapeError, match="2 seeds, conditioning of 3"):
        made.rollout(whole.conditioning, seeds=[1, 2], frames=2)
    joined = join_trajectories([picked, whole], whole.conditioning)
    assert joined.tokens.shape == joined.log_prob.shape == (5, whole.tokens.shape[1], made.layout.codebooks)
    assert (joined.tokens[:2, :length] == picked.tokens).all()
    assert (joined.tokens[:2, length:] == IGNORED).all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_lora_and_nothing_else(kind: str, tokens_of: Any) -> None:
    made = tokens_of(kind)
    trajectory = drawn(made)
    moved(made)
    token_log_prob(made, trajectory.tokens, trajectory.conditioning).sum().backward()
    touched = {name for name, p in made.model.named_parameters() if p.grad is not None}
    trainable = {name for name, p in made.model.named_parameters() if p.requires_grad}
    assert touched == trainable
    assert all("lora_" in name and name.startswith(made.layout.trained) for name in touched)
    assert all(p.grad.abs().sum() > 0 for _, p in made.model.named_parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_lora_is_the_reference_and_a_kept_copy_stays(kind: str, tokens_of: Any) -> None:
    made = tokens_of(kind)
    trajectory = drawn(made)

    def found() -> Tensor:
        return token_log_prob(made, trajectory.tokens, trajectory.conditioning).detach()

    start = found()
    made.kept.keep("old")
    with made.weights("reference"):
        assert (found() == start).all()
    moved(made)
    assert (found() - start).abs().max() > 1e-3
    with made.weights("reference"):
        assert (found() == start).all()
    with made.weights("old"):
        assert (found() == start).all()
    with pytest.raises(ConfigError, match="no copy 'target'"), made.weights("target"):
        pass


@pytest.mark.parametrize("kind", GUIDED)
def test_guidance(kind: str, tokens_of: Any) -> None:
    made = tokens_of(kind)
    guided = drawn(made, guidance=3.0)
    found = token_log_prob(made, guided.tokens, guided.conditioning, sampler=guided.sampler)
    assert_close(found, guided.log_prob, atol=1e-4, rtol=0)
    plain = token_log_prob(made, guided.tokens, guided.conditioning)
    one = token_log_prob(made, guided.tokens, guided.conditioning, sampler=TokenSampler(guidance=1.0))
    assert (one == plain).all()
    assert (found - plain).abs().max() > 1e-3
    zero = token_log_prob(made, guided.tokens, guided.conditioning, sampler=TokenSampler(guidance=0.0))
    assert (zero - plain).abs().max() > 1e-4  # the other branch reads something else
    same = drawn(made, guidance=1.0)
    assert (same.tokens == drawn(made).tokens).all()


def test_guidance_needs_both_branches(tokens_of: Any) -> None:
    made = tokens_of("llama")
    conditioning = made.condition(["a"])
    with pytest.raises(ConfigError, match="made with guidance"):
        made.rollout(conditioning, seeds=[0], frames=2, guidance=2.0)
    with pytest.raises(ConfigError, match="without an unconditional branch"):
        tokens_of("csm").condition(["a"], guidance=2.0)
    with pytest.raises(ConfigError, match="would be ignored"):
        made.condition(["a"], negative_prompt="b")
    with pytest.raises(ConfigError, match="would be ignored"):
        tokens_of("musicgen").condition(["a"], guidance=2.0, negative_prompt="b")
    other = made.condition(["a"], guidance=2.0, negative_prompt="b")
    again = made.condition(["b"])
    assert (other.unconditional["ids"] == again.conditional["ids"]).all()


def test_samples_follow_their_distribution(tokens_of: Any) -> None:
    """4,000 draws of one token against its probabilities: 4.5 standard deviations of a share at most."""
    made, N = tokens_of("llama"), 4000
    conditioning = made.condition(["a"]).rows(torch.zeros(N, dtype=torch.long))
    for options in ({}, {"temperature": 1.5}, {"top_k": 3}, {"top_p": 0.6}):
        trajectory = made.rollout(conditioning, seeds=range(N), frames=1, **options)
        share = trajectory.tokens[:, 0, 0].bincount(minlength=CODES + 1) / N
        logits = made.logits(trajectory.tokens[:1], made.condition(["a"]))
        probability = trajectory.sampler.log_probs(logits)[0, 0, 0].exp()
        assert (share - probability).abs().max() < 4.5 * (0.25 / N) ** 0.5
        assert (share[probability == 0] == 0).all()


def test_an_end_ends_a_sample(tokens_of: Any) -> None:
    for kind in ("llama", "llama_codebooks", "dia", "csm"):
        made = tokens_of(kind)
        made_many = made.condition(["a"]).rows(torch.zeros(300, dtype=torch.long))
        many = made.rollout(made_many, seeds=range(300), frames=8, temperature=1.5)
        K, mask = made.layout.codebooks, many.mask
        assert (mask[:, 1:] <= mask[:, :-1]).all()  # nothing follows an end
        counts = mask.sum(1)
        if kind == "csm":
            assert (counts == counts[:, :1]).all()
            last = many.tokens[torch.arange(300), counts[:, 0] - 1]
            over = counts[:, 0] < 8
            assert (last[over][:, :-1] == 0).all()
            continue
        ended = (many.tokens[..., 0] == made.layout.eos).any(1)
        assert 10 < int(ended.sum()) < 300
        # The end stands in the first codebook alone, so the others have one frame less.
        assert (counts[ended, 0] == counts[ended, K - 1] + (K > 1)).all()
        assert (counts[~ended] == 8).all()
        assert not (many.tokens[..., 1:] == made.layout.eos).any()


def test_a_csm_sample_ends_at_a_frame_of_ends(tokens_of: Any) -> None:
    layout = tokens_of("csm").layout
    frames = torch.tensor([[0, 0, 0, 5], [0, 0, 1, 0], [0, 0, 0, 0]])
    assert layout.ends(frames).tolist() == [True, False, True]


def test_tokens_that_are_none_are_refused(tokens_of: Any) -> None:
    made = tokens_of("dia")
    conditioning = made.condition(["a"])
    good = torch.ones(1, 4, 3, dtype=torch.long)
    with pytest.raises(ShapeError, match=r"expected integers \[B, T, 3\]"):
        made.logits(good[..., :2], conditioning)
    with pytest.raises(ShapeError, match="conditioning of 1"):
        made.logits(good.repeat(2, 1, 1), conditioning)
    for place, value in (
        ((0, 1, 1), 11),
        ((0, 1, 0), 12),
        ((0, 0, 2), -2),
    ):  # an end in codebook 1, padding, nothing
        bad = good.clone()
        bad[place] = value
        with pytest.raises(ConfigError, match=f"codebook {place[2]} holds no {value}"):
            made.logits(bad, conditioning)
    bad = good.clone()
    bad[0, 1] = IGNORED
    with pytest.raises(ConfigError, match="pad on the right"):
        made.logits(bad, conditioning)
    janus = tokens_of("janus")
    picture = janus.condition(["a"])
    with pytest.raises(ConfigError, match="frames = 17: expected 1 to 16"):
        janus.rollout(picture, seeds=[0], frames=17)


def test_what_has_no_layout_is_refused() -> None:
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    with pytest.raises(UnsupportedPipelineError, match="nothing says which tokens are media"):
        TokenGenerator(BertModel(config), ByT5Tokenizer())
    with pytest.raises(ConfigError, match="vocabulary has 0 to 411"):
        CausalTokens(llama(), first_code=FIRST, codes=CODES + 1)
    with pytest.raises(ConfigError, match="where the prompt goes"):
        TokenGenerator(llama(), ByT5Tokenizer(), template="speech")


def test_a_model_that_draws_otherwise_than_it_learns_is_refused() -> None:
    model = llama()
    with torch.no_grad():  # positions from the mask are lost, as where a class forgets its cache
        forward = model.model.forward
        model.model.forward = lambda **inputs: forward(**{**inputs, "past_key_values": None})
    with pytest.raises(UnsupportedPipelineError, match="go wrong in silence"):
        TokenGenerator(model, ByT5Tokenizer(), layout=CausalTokens(model, first_code=FIRST, codes=CODES))


@pytest.mark.parametrize("kind", ["llama", "csm", "musicgen"])
def test_a_lora_is_saved_and_loaded(kind: str, tokens_of: Any, tmp_path: Path) -> None:
    made = tokens_of(kind)
    trajectory = drawn(made)
    moved(made)
    made.save_lora(tmp_path)
    fresh = generator(kind)
    fresh.load_lora(tmp_path)
    assert_close(
        token_log_prob(fresh, trajectory.tokens, trajectory.conditioning),
        token_log_prob(made, trajectory.tokens, trajectory.conditioning),
    )
    assert len(lora.trainable(fresh.model)) == len(lora.trainable(made.model))
    with pytest.raises(ConfigError, match="has a LoRA already"):
        fresh.load_lora(tmp_path)
    with pytest.raises(ConfigError, match=r"no adapter_config\.json"):
        generator("llama").load_lora(tmp_path / "nowhere")
