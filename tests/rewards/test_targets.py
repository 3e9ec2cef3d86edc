"""What a card may name, and what it may ask for beyond its folder."""

from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from mmalign.cli.rewards import plug_in_listing
from mmalign.errors import ConfigError, DataError, TrustError
from mmalign.rewards import targets
from mmalign.rewards.card_options import settings_of
from mmalign.rewards.cards import cards, find_card, load_reward
from mmalign.rewards.targets import TARGETS, code_of, load_target
from mmalign.trust import trusting

FIELDS = "modalities: [image]\nunit: u\nhigher_is_better: true\ndifferentiable: false\nneeds: []\nsource: s\n"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    """Entry points as installed packages declare them."""
    points: list[EntryPoint] = []
    monkeypatch.setattr(targets, "entry_points", lambda group: points if group == targets.GROUP else [])
    targets.plug_ins.cache_clear()
    yield points
    targets.plug_ins.cache_clear()


def card(folder: Path, text: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "card.yaml").write_text(FIELDS + text)
    return str(folder)


def test_every_card_that_ships_is_of_the_table_and_the_table_can_be_imported() -> None:
    assert len(cards()) > 40
    assert all(code_of(shipped.target) is not None for shipped in cards().values())
    assert list(TARGETS) == sorted(TARGETS)
    for code in TARGETS.values():
        settings_of(load_target(code))


def test_a_plug_in_is_named_by_cards_and_listed_with_its_package(
    installed: list[EntryPoint], tmp_path: Path
) -> None:
    assert plug_in_listing() == ""
    name = card(tmp_path / "mine", "target: chance\n")
    with pytest.raises(TrustError, match="its card names the code 'chance'"):
        find_card(name)
    installed.append(EntryPoint("chance", "mmalign.rewards.placebo:Placebo", targets.GROUP))
    targets.plug_ins.cache_clear()
    assert load_reward(name).card.target == "chance"
    assert "chance" in plug_in_listing()
    assert "a package" in plug_in_listing()


@pytest.mark.parametrize("names", [["ClipReward"], ["mine", "mine"]])
def test_a_plug_in_whose_name_is_taken_is_an_error(installed: list[EntryPoint], names: list[str]) -> None:
    installed += [EntryPoint(name, "x:Y", targets.GROUP) for name in names]
    with pytest.raises(ConfigError, match=f"called '{names[0]}', which .* has already"):
        load_reward("placebo")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "target: Sharpness\noptions: {batch_siz: 4}\n",
            "no option in options is called 'batch_siz'. Did you mean",
        ),
        (
            "target: Sharpness\noptions: {batch_size: many}\n",
            "batch_size = 'many', but it takes a whole number",
        ),
        (
            "target: Sharpness\noptions: {batch_size: true}\n",
            "batch_size = True, but it takes a whole number",
        ),
        ("target: within_prompt\n", "options: 'of' is missing"),
        ("target: VqaScore\noptions: {trust_remote_code: true}\n", "called 'trust_remote_code'"),
        ("target: VqaScore\noptions: {model: somebody/else}\n", "called 'model'"),
        ("target: Sharpness\noptions: [1]\n", r"options = \[1\], but it is a mapping"),
        ("target: 3\n", "target = 3, but it is a text"),
        ("target: Sharpness\nextra: os\n", "no extra is called 'os'"),
        ("target: Sharpness\nfiles: [../../bashrc]\n", "no name of a file in the folder of weights"),
        ("target: Sharpness\nparts: {/etc: {source: a/b, files: [c]}}\n", "no name of a file in the folder"),
    ],
)
def test_what_a_card_says_is_checked_by_name_and_type(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_reward(card(tmp_path / "mine", text))
    assert "card.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            "target: RemoteReward\noptions: {url: 'http://127.0.0.1:9', token: $HOME}\n",
            "the address 'http://127.0.0.1:9'",
        ),
        (
            "target: VqaScore\noptions: {endpoint: {base_url: 'http://127.0.0.1:9', model: m}}\n",
            "the address",
        ),
        ("target: within_prompt\noptions: {of: 'http://127.0.0.1:9'}\n", "the address"),
        ("target: ClipReward\nweights: http://127.0.0.1:9/x\n", "the address"),
        (
            "target: cached\noptions: {of: placebo, folder: ../elsewhere}\n",
            "'../elsewhere', outside its folder",
        ),
        (
            "target: against_baseline\noptions: {of: placebo, baseline: /etc/passwd}\n",
            "'/etc/passwd', outside",
        ),
        ("target: ClipReward\nweights: ~/clip\n", "'~/clip', outside its folder"),
    ],
)
def test_what_leads_out_of_a_cards_folder_wants_trust(
    tmp_path: Path, text: str, what: str, capsys: Any
) -> None:
    name = card(tmp_path / "theirs", text)
    with pytest.raises(TrustError, match=f"{what}.*add --trust {name}"):
        find_card(name)
    with trusting([name]):
        assert find_card(name).target
    assert f"mmalign: trusted {name}: its card names " in capsys.readouterr().err


def test_rewards_that_a_card_is_made_of_are_judged_by_their_own_cards(tmp_path: Path) -> None:
    inner = card(tmp_path / "inner", "target: theirs:Thing\n")
    outer = card(tmp_path / "outer", f"target: within_prompt\noptions: {{of: {inner}}}\n")
    assert find_card(outer).made_of == (inner,)
    with pytest.raises(TrustError, match=f"add --trust {inner}"):
        load_reward(outer, trust=[outer])
    sound = card(tmp_path / "inner", "target: mmalign.rewards.placebo:Placebo\n")
    assert sound == inner
    assert load_reward(outer).card.made_of == (inner,)
