"""What a command says when it cannot go on: one sentence of ours, and no stack trace."""

from tests.faults.warm import Ended

SPEAKER = "mmalign: "


def one_sentence(ended: Ended) -> str | None:
    """The sentence with which a command refused, status 2; None where it ended otherwise."""
    said = [line for line in ended.err.splitlines() if line.startswith(SPEAKER)]
    whole = ended.status == 2 and len(said) == 1 and not has_traceback(ended)
    return said[0].removeprefix(SPEAKER) if whole else None


def has_traceback(ended: Ended) -> bool:
    """Whether the user sees our insides."""
    return "Traceback (most recent call last)" in ended.err
