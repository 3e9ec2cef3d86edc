"""A student is some layers of its teacher, with the teacher's own weights, and leaves the teacher as it is."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import ByT5Tokenizer

from mmalign.adapters.speech import SpeechAdapter
from mmalign.adapters.speech_codec import SpeechCodec
from mmalign.errors import ConfigError, UnsupportedPipelineError
from mmalign.generators.students import kept_layers, shallow_copy
from tests.generators.small_token_models import CODES, END, FIRST, llama


@pytest.mark.parametrize(
    ("count", "share", "expected"), [(4, 0.5, [1, 3]), (4, 0.25, [3]), (6, 0.5, [1, 3, 5]), (3, 0.67, [0, 2])]
)
def test_kept_layers_are_spread_and_end_with_the_last(count: int, share: float, expected: list[int]) -> None:
    assert kept_layers(count, share) == expected


def test_a_share_that_keeps_none_or_all_is_refused() -> None:
    for share in (0.1, 0.95):
        with pytest.raises(ConfigError, match="expected 1 to 1 layers"):
            kept_layers(2, share)


def test_a_student_is_the_teacher_without_some_layers() -> None:
    teacher = llama()
    student = shallow_copy(teacher, share=0.5)
    assert len(student.model.layers) == student.config.num_hidden_layers == 1
    own = student.state_dict()
    assert torch.equal(own["model.embed_tokens.weight"], teacher.state_dict()["model.embed_tokens.weight"])
    ids = torch.tensor([[3, 5, 7]])
    # The teacher with its first layer taken out.
    teacher.model.layers = teacher.model.layers[1:]
    teacher.model.layers[0].self_attn.layer_idx = 0
    assert_close(student(ids, use_cache=False).logits, teacher(ids, use_cache=False).logits)


def test_a_model_whose_layers_are_not_found_is_refused() -> None:
    model = llama()
    model.others = torch.nn.ModuleList(torch.nn.Identity() for _ in range(2))
    with pytest.raises(UnsupportedPipelineError, match="found 2"):
        shallow_copy(model, share=0.5)


def test_a_student_is_the_policy_and_its_teacher_the_reference(tmp_path: Path) -> None:
    codec = SpeechCodec(torch.randn(CODES, 64, generator=torch.Generator().manual_seed(0)) - 4)
    adapter = SpeechAdapter(llama(), ByT5Tokenizer(), codec, first_code=FIRST, end_id=END, frames=6)
    generator, tokens = adapter.generator, torch.tensor([[[1], [2], [CODES]]])
    conditioning = generator.condition(["go"])
    before = generator.logits(tokens, conditioning)
    generator.attach_student(share=0.5)
    with generator.weights("reference"):
        assert torch.equal(generator.logits(tokens, conditioning), before)
    mine = generator.logits(tokens, conditioning)
    assert not torch.allclose(mine, before, atol=1e-2)
    mine.sum().backward()
    policy: Any = generator.policy
    assert all(p.grad is not None for p in policy.model.layers.parameters())
    assert all(p.grad is None for p in generator.teacher.parameters())
    with pytest.raises(ConfigError, match="take a fresh one"):
        generator.attach_student(share=0.5)
    adapter.save(tmp_path)
    again = SpeechAdapter.load(tmp_path, device="cpu", dtype=torch.float32)
    assert_close(again.generator.logits(tokens, conditioning), mine.detach())
