import pytest
import torch
from torch.testing import assert_close

from mmalign.errors import ShapeError, UnknownNameError
from mmalign.losses import LIFT_SCORES, lift_score, lift_weights


def test_the_grades_are_the_published_ones() -> None:
    assert LIFT_SCORES == {"good": 0.9, "normal": 0.2, "bad": 0.05}


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("Good", 0.9),
        ("normal.", 0.2),
        ("Bad! The hand melts.", 0.05),
        ("GOOD: good motion, good light", 0.9),
        ("Rating:\nNormal", 0.2),
    ],
)
def test_one_grade_is_read_wherever_it_stands(answer: str, score: float) -> None:
    assert lift_score(answer) == score


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "7/10",
        "Goods",
        "badly drawn",
        "abnormal",
        "Good, or rather Normal",
        "not bad, good",
        "not good",
        "far from good",
        "good?",
    ],
)
def test_an_answer_without_one_grade_has_no_score(answer: str) -> None:
    with pytest.raises(UnknownNameError, match=r"no grade is called .* Known: bad, good, normal"):
        lift_score(answer)


def test_three_grades_are_one_weight_rounded() -> None:
    scores = torch.tensor([[0.9, 0.9, 0.9], [0.9, 0.9, 0.2], [0.9, 0.2, 0.05], [0.05, 0.05, 0.2]])
    assert_close(lift_weights(scores), torch.tensor([0.9, 0.67, 0.38, 0.1]), rtol=0, atol=1e-7)


def test_any_number_of_questions_is_averaged() -> None:
    assert_close(lift_weights(torch.tensor([[0.9, 0.2]])), torch.tensor([0.55]))
    assert lift_weights(torch.tensor([[0.2]])).tolist() == [pytest.approx(0.2)]


def test_weights_are_constants_of_a_batch() -> None:
    assert not lift_weights(torch.tensor([[0.9, 0.2]], requires_grad=True)).requires_grad
    with pytest.raises(ShapeError, match=r"scores: expected \[B, D\], got \[3\]"):
        lift_weights(torch.ones(3))
