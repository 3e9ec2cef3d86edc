"""The words that judges are asked with, and how a prompt gets into them."""

from dataclasses import dataclass

from mmalign.errors import ConfigError

VQASCORE = 'Does this figure show "{prompt}"? Please answer yes or no.'
DIGITS = 'How well does the {medium} show "{prompt}", from {low} to {high}? Answer with one digit.'
LIKERT = 'How well does the {medium} show "{prompt}"? Answer with one of: {words}.'
NUMBER = 'How well does the {medium} show "{prompt}", from {low} to {high}? Write "score: " and the number.'
CRITIQUE = (
    'How well does the {medium} show "{prompt}", from {low} to {high}? Describe it first, then write "score: " and the '
    "number."
)
PAIR = 'Which {medium} shows "{prompt}" better, 1 or 2? Answer 0 if neither does.'
ANALYSIS = 'Describe each {medium}, then how they differ with respect to "{prompt}".'
VERDICT = '{analysis}\nBy this, which {medium} shows "{prompt}" better, 1 or 2? Answer 0 if neither does.'

LIKERT_WORDS = ("extremely poor", "poor", "average", "good", "outstanding")
"""From worst to best, 1 to 5: the anchor words of MJ-Bench (Chen et al. 2024, arXiv:2407.04842)."""

MEDIUM_NAMES = {
    "audio": "recording",
    "image": "picture",
    "scene3d": "scene",
    "speech": "recording",
    "video": "video",
}
"""What a question calls each modality."""


def ask(template: str, **values: object) -> str:
    """Fill a question's fields, each once and literally: what is filled in is never read for fields again.

    >>> ask('Is "{prompt}" shown by this {medium}?', prompt="a {medium} of 7", medium="picture")
    'Is "a {medium} of 7" shown by this picture?'

    Args:
        template: with fields in braces. A brace that opens none of ``values`` stays as it is.
        values: by field.
    """
    pieces, rest = [], template
    while rest:
        found = [(rest.find("{" + name + "}"), name) for name in values if "{" + name + "}" in rest]
        if not found:
            break
        place, name = min(found)
        pieces += [rest[:place], str(values[name])]
        rest = rest[place + len(name) + 2 :]
    return "".join([*pieces, rest])


@dataclass(frozen=True, slots=True)
class Scale:
    """Whole numbers from worst to best.

    Raises:
        ConfigError: ``high`` is not above ``low``.
    """

    low: int = 1
    high: int = 5

    def __post_init__(self) -> None:
        if self.high <= self.low:
            raise ConfigError(f"scale: expected low < high, got {self.low} and {self.high}")

    @property
    def values(self) -> tuple[int, ...]:
        """Every step, worst first."""
        return tuple(range(self.low, self.high + 1))
