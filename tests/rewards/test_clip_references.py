"""RefCLIPScore against its formula, written out on transformers' vectors."""

from dataclasses import replace
from pathlib import Path
from statistics import harmonic_mean as plain_harmonic_mean

import pytest
import torch

from mmalign.rewards.clip_references import harmonic_mean
from tests.rewards.factories import FACTORIES
from tests.rewards.photographs import crops, samples
from tests.rewards.test_clip_transformers import PICTURES, agree, by_torchvision, embed

PROMPTS = ["a portrait", "a cat", "an officer"]
REFERENCES = [["a woman", "an officer in front of a flag"], ["a cat"], ["x", "y", "a portrait of an officer"]]


def test_the_harmonic_mean_is_pythons_and_has_a_gradient_at_0() -> None:
    first, second = torch.rand(2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = [plain_harmonic_mean(pair) for pair in zip(first.tolist(), second.tolist(), strict=True)]
    assert harmonic_mean(first, second).tolist() == pytest.approx(expected)
    nothing = torch.zeros(2, requires_grad=True)
    harmonic_mean(nothing, torch.tensor([0.0, 0.5])).sum().backward()
    assert nothing.grad is not None
    assert nothing.grad.isfinite().all()


def test_it_is_its_authors_formula(tmp_path: Path) -> None:
    reward = FACTORIES["refclipscore-vit-b-32"](tmp_path)
    prefix = "A photo depicts "
    _, image, captions = embed(tmp_path, [prefix + prompt for prompt in PROMPTS], by_torchvision)
    _, _, others = embed_texts(tmp_path, [prefix + text for texts in REFERENCES for text in texts])
    shown = 2.5 * (image * captions).sum(1).clamp(min=0)
    groups = others.split([len(texts) for texts in REFERENCES])
    nearest = torch.stack([(g @ c).max().clamp(min=0) for g, c in zip(groups, captions, strict=True)])
    expected = 2 / (1 / shown + 1 / nearest)
    scored = [
        replace(sample, context={"references": "\n".join(texts)})
        for sample, texts in zip(samples(PROMPTS, crops(*PICTURES)), REFERENCES, strict=True)
    ]
    agree(reward.score(scored).value, expected, drift=0.03)


def embed_texts(folder: Path, texts: list[str]) -> tuple[object, object, torch.Tensor]:
    """Texts one at a time, so that nothing is padded; the picture beside them does not count."""
    vectors = []
    for text in texts:
        _, _, vector = embed(folder, [text], by_torchvision)
        vectors.append(vector)
    return None, None, torch.cat(vectors)


@pytest.mark.parametrize("references", ["", " \n\n"])
def test_no_reference_is_a_status(tmp_path: Path, references: str) -> None:
    reward = FACTORIES["refclipscore-vit-b-32"](tmp_path)
    (sample,) = samples(["a cat"], crops((32, 32)))
    assert reward.score([replace(sample, context={"references": references})]).status == ["no references"]
