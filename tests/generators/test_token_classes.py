"""Our logits against what each class's own ``generate`` says, token by token, drawn greedily."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmalign.generators.token_layouts import delayed
from mmalign.generators.tokens import TokenGenerator
from tests.generators.small_token_models import END, FIRST, generator

FRAMES = 5


def prompts(made: TokenGenerator, *texts: str) -> dict[str, Tensor]:
    """Ids and mask as a processor makes them, padded on the right."""
    padded = made.tokenizer(list(texts), padding=True, return_tensors="pt")
    return {"input_ids": padded.input_ids, "attention_mask": padded.attention_mask}


def greedy(
    made: TokenGenerator, *texts: str, guidance: float | None = None, frames: int | None = FRAMES
) -> Any:
    conditioning = made.condition(texts, guidance=guidance)
    drawn = made.rollout(conditioning, seeds=range(len(texts)), frames=frames, top_k=1, guidance=guidance)
    return drawn.tokens, made.logits(drawn.tokens, conditioning, guidance=guidance)


def test_llama() -> None:
    made = generator("llama")
    texts = ["one", "two"]
    tokens, logits = greedy(made, *texts)
    made.model.generation_config.eos_token_id = END
    allowed = [*range(FIRST, FIRST + made.layout.vocabulary - 1), END]
    output = made.model.generate(
        **prompts(made, *texts),
        prefix_allowed_tokens_fn=lambda *_: allowed,
        max_new_tokens=FRAMES,
        do_sample=False,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    own = torch.stack(output.logits, 1)[..., allowed]
    counted = tokens[..., 0] >= 0
    assert counted.sum() >= FRAMES
    assert_close(logits[:, :, 0][counted], own[counted], atol=1e-4, rtol=0)


@pytest.mark.parametrize("guidance", [None, 3.0])
@pytest.mark.parametrize("kind", ["musicgen", "musicgen_stereo"])
def test_musicgen(kind: str, guidance: float | None) -> None:
    made = generator(kind)
    texts = ["one", "and two"]
    _, logits = greedy(made, *texts, guidance=guidance)
    K, delays = made.layout.codebooks, made.layout.delays
    output = made.model.generate(
        **prompts(made, *texts),
        guidance_scale=guidance,
        # Its own pattern has a step more than the last codebook's last frame needs: begin, frames, delay.
        max_length=FRAMES + max(delays) + 1,
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
    )
    own = torch.stack(output.scores, 1).unflatten(0, (len(texts), K))  # [B, K, S, V]
    assert len(delays) == K > 1
    for k, delay in enumerate(delays):
        assert_close(logits[:, :, k], own[:, k, delay : delay + FRAMES], atol=1e-4, rtol=0)


def test_dia() -> None:
    made = generator("dia")
    texts = ["one", "and two"]
    tokens, logits = greedy(made, *texts)
    layout = made.layout
    # As its processor begins: every codebook's delay filled, the rest to be drawn.
    begin = torch.full((2, 1 + max(layout.delays), layout.codebooks), layout.after)
    for k, delay in enumerate(layout.delays):
        begin[:, : 1 + delay, k] = layout.before
    output = made.model.generate(
        **prompts(made, *texts),
        decoder_input_ids=begin,
        decoder_attention_mask=torch.ones(begin.shape[:2], dtype=torch.long),
        max_new_tokens=2 * FRAMES + max(layout.delays),  # the class forces an end at the last
        guidance_scale=None,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    own = torch.stack(output.logits, 1).unflatten(0, (2, layout.codebooks))
    counted = tokens >= 0
    assert counted[..., 0].sum() >= FRAMES
    steps = delayed(layout.filled(tokens), layout.delays, before=layout.before, after=layout.after)
    assert (output.sequences[:, 1 : 1 + FRAMES, 0] == steps[:, :FRAMES, 0]).all()
    allowed = layout.allowed()
    for k, delay in enumerate(layout.delays):
        # Behind our last frame is padding, which codebooks that lag see.
        found, theirs = logits[:, : FRAMES - max(layout.delays) + 1, k], own[:, k, delay:]
        shared = counted[:, : found.shape[1], k]
        assert_close(
            found[shared][:, allowed[k]],
            theirs[:, : found.shape[1]][shared][:, allowed[k]],
            atol=1e-4,
            rtol=0,
        )


def test_csm() -> None:
    made = generator("csm")
    depth = made.model.depth_decoder.generation_config
    depth.max_new_tokens = depth.min_new_tokens = made.layout.codebooks - 1
    depth.do_sample = False
    tokens, logits = greedy(made, "one two")
    output = made.model.generate(
        **prompts(made, "one two"),
        max_new_tokens=FRAMES,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    assert (output.sequences == tokens[:, : output.sequences.shape[1]]).all()
    assert output.sequences.shape[1] == FRAMES
    assert_close(logits[:, :, 0], torch.stack(output.logits, 1), atol=1e-4, rtol=0)


def test_janus() -> None:
    made = generator("janus")
    tokens, _ = greedy(made, "one two", guidance=3.0, frames=None)
    own = made.model.generate(
        **prompts(made, "one two"), generation_mode="image", guidance_scale=3.0, do_sample=False
    )
    assert len(set(tokens.flatten().tolist())) > 2
    assert (own == tokens[..., 0]).all()
