"""A prompt that is typed in two ways is one prompt: what is held out was not trained on in another spelling."""

import torch

from mmalign.texts import plain_prompt
from mmalign.training.dense_data import DenseExample, split_dense
from mmalign.training.reward_data import Examples, split_by_prompt

PLAIN = [f"the dog's {kind}" for kind in ("house", "bowl", "bed", "ball", "walk", "friend")]
TYPED = [*PLAIN, *(f"The dog’s  {prompt.split()[-1]}." for prompt in PLAIN)]


def test_no_spelling_of_a_prompt_is_in_two_parts_of_a_rewards_data() -> None:
    rows = torch.arange(len(TYPED))
    none = torch.zeros_like(rows)
    examples = Examples(
        kind="pairs",
        media=(),
        prompts=tuple(TYPED),
        aspects=("overall",),
        annotators=("",),
        prompt=rows,
        first=none,
        second=none,
        target=none.float(),
        aspect=none,
        annotator=none,
        row=rows,
        rows=len(TYPED),
        rejected=(),
    )
    split = split_by_prompt(examples, heldout=0.5, generator=torch.Generator().manual_seed(0))
    parts = [
        {plain_prompt(TYPED[i]) for i in part.prompt} for part in (split.train, split.stopping, split.heldout)
    ]
    assert sorted(map(len, parts)) == [1, 2, 3] or sorted(map(len, parts)) == [2, 2, 2]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(PLAIN)
    assert sum(len(part) for part in (split.train, split.stopping, split.heldout)) == len(TYPED)


def test_no_spelling_of_a_prompt_is_in_two_parts_of_dense_data() -> None:
    examples = [DenseExample(prompt, i, (True,), None, i + 1) for i, prompt in enumerate(TYPED)]
    split = split_dense(examples, heldout=0.5, generator=torch.Generator().manual_seed(0))
    parts = [{plain_prompt(TYPED[i]) for i in part} for part in (split.train, split.stopping, split.heldout)]
    assert all(parts)
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(PLAIN)
