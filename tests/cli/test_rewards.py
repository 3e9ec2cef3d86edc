"""``mmalign rewards``: the table of cards, printed."""

import pytest
import yaml

from mmalign.cli import rewards
from mmalign.errors import UnknownNameError
from mmalign.rewards.cards import cards


def test_every_card_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert rewards.main([]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["name", "scores", "needs", "better", "gradient", "state", "unit"]
    assert [line.split()[0] for line in lines] == list(cards())
    assert all("ready" in line or "needs" in line for line in lines)


@pytest.mark.parametrize("name", list(cards()))
def test_a_card_is_shown_as_yaml(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert rewards.main([name]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["name"] == name
    assert shown["unit"] == cards()[name].unit
    assert shown["state"] == cards()[name].readiness()


def test_an_unknown_name_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'placebo'"):
        rewards.main(["placbo"])
    assert capsys.readouterr().out == ""
