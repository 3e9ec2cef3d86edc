"""Says in a sentence what a summary shows, and writes numbers the way people read them."""

from collections.abc import Mapping
from typing import Any, Literal

from mmalign.evaluation.run_folder import finite

Outcome = Literal["better", "worse", "no clear change", "not measured"]

MISSING = "–"


def outcome(heldout: Mapping[str, Any] | None) -> Outcome:
    """What the interval of the held-out gain allows one to say.

    "better" and "worse" only where the whole interval is on one side of zero. ``higher_is_better`` is true unless
    the entry says otherwise.

    >>> outcome({"gain": 0.05, "ci95": [0.02, 0.08]}), outcome({"gain": 0.05, "ci95": [-0.02, 0.12]})
    ('better', 'no clear change')
    """
    low, high = interval(heldout)
    if low is None or high is None:
        return "not measured"
    if low <= 0 <= high:
        return "no clear change"
    return "better" if low * sign_of(heldout) > 0 else "worse"


def sign_of(entry: Mapping[str, Any] | None) -> float:
    """What the scores of a summary's reward are multiplied by where more has to be better, as ``RewardCard.sign`` is.

    >>> sign_of({"name": "truth"}), sign_of({"name": "wer", "higher_is_better": False})
    (1.0, -1.0)
    """
    return 1.0 if bool((entry or {}).get("higher_is_better", True)) else -1.0


def interval(heldout: Mapping[str, Any] | None) -> tuple[float | None, float | None]:
    """The two ends of ``ci95``, None where missing."""
    ends = (heldout or {}).get("ci95")
    if not isinstance(ends, list | tuple) or len(ends) != 2:
        return None, None
    return finite(ends[0]), finite(ends[1])


def held_out(summary: Mapping[str, Any]) -> bool:
    """Whether the held-out reward is none of those that training used, itself or through simulated people.

    >>> held_out({"heldout_reward": {"name": "truth"}, "train_reward": {"name": "clip:0.5 + truth:0.5"}})
    False
    >>> held_out({"heldout_reward": {"name": "truth"}, "labels": "simulated"})
    False
    """
    if str(summary.get("labels")).endswith("simulated"):
        return False
    trained_on = str((summary.get("train_reward") or {}).get("name")).split(" + ")
    return (summary.get("heldout_reward") or {}).get("name") not in [
        name.split(":")[0] for name in trained_on
    ]


def verdict(summary: Mapping[str, Any]) -> str:
    """The result of a run in a few sentences, with the interval.

    >>> verdict({})
    'Not measured: this run has no held-out reward, so it cannot say whether the generator got better.'
    """
    heldout, train = summary.get("heldout_reward"), summary.get("train_reward")
    if heldout:
        result = outcome(heldout)
        use = "which training never used" if held_out(summary) else "which training used too"
        if str(summary.get("labels")).endswith("simulated"):
            use = "which simulated people judged training samples by"
        text = (
            f"{result.capitalize()}: the held-out reward {heldout.get('name')}, {use}, went from "
            f"{number(heldout.get('before'))} to {number(heldout.get('after'))}, {signed(heldout.get('gain'))} "
            f"({_sure(heldout)})."
        )
        if heldout.get("excluded"):
            text += f" Left out: {number(heldout['excluded'])} samples without a score before or after."
    else:
        result = "not measured"
        text = "Not measured: this run has no held-out reward, so it cannot say whether the generator got better."
    if summary.get("rounds"):
        choices = sum(row.get("choices", 0) for row in summary["rounds"])
        text += f" It took {number(choices)} choices in {number(len(summary['rounds']))} rounds."
    if train:
        text += (
            f" The training reward {train.get('name')} went from {number(train.get('before'))} "
            f"to {number(train.get('after'))}."
        )
        if heldout and result != "better" and _rose(train):
            text += (
                " The training reward got better and the held-out one did not: the generator may have learnt to"
                " please its scorer. Look at the samples and the guards."
            )
    return text


def _sure(heldout: Mapping[str, Any]) -> str:
    """Interval and size, in words."""
    low, high = interval(heldout)
    ends = "no interval" if low is None or high is None else f"95% interval {signed(low)} to {signed(high)}"
    if not heldout.get("prompts"):
        return f"{ends}, n = {number(heldout.get('n'))}"
    return f"{ends}, {number(heldout.get('n'))} samples of {number(heldout['prompts'])} prompts"


def _rose(train: Mapping[str, Any]) -> bool:
    before, after = finite(train.get("before")), finite(train.get("after"))
    if before is None or after is None:
        return False
    return sign_of(train) * (after - before) > 0


def number(value: object) -> str:
    """A number to about three digits, or "–" where it is missing.

    >>> number(0.71828), number(21.318), number(540), number(12345.6), number(0.00012345), number(float("nan"))
    ('0.718', '21.3', '540', '12,346', '0.000123', '–')
    """
    if finite(value) is None:
        return MISSING
    assert isinstance(value, int | float)
    size = abs(value)
    if isinstance(value, int) or size >= 1000:
        text = f"{value:,.0f}"
    elif size >= 10:
        text = f"{value:.1f}"
    elif size == 0 or size >= 0.01:
        text = f"{value:.3f}"
    else:
        text = f"{value:.3g}"
    return text.replace("-", "−")


def signed(value: object) -> str:
    """A change, always with its sign.

    >>> signed(0.0714), signed(-0.5), signed(0.0), signed(12)
    ('+0.071', '−0.500', '0.000', '+12')
    """
    given = finite(value)
    return ("+" if given is not None and given > 0 else "") + number(value)


def duration(seconds: object) -> str:
    """Seconds as people say them.

    >>> duration(4.2), duration(312), duration(7384)
    ('4.2 s', '5 min 12 s', '2 h 3 min')
    """
    given = finite(seconds)
    if given is None:
        return MISSING
    if given < 60:
        return f"{given:.1f} s"
    minutes, rest = divmod(round(given), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
