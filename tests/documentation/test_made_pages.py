"""Pages that are made: one for every card, method and module, with what the code says and no figure of its own."""

import dataclasses
import json
from pathlib import Path

import pytest

from documentation import checks, command_line, measured, methods, reference, rewards
from documentation.docstrings import ROOT, docstring
from documentation.tables import table
from mmalign.cli.main import COMMANDS
from mmalign.methods import METHODS
from mmalign.rewards.cards import cards
from mmalign.training.recipe import load_recipe

REWARD_PAGES = {title: text for _, title, text in rewards.pages()}
METHOD_PAGES = {title: text for _, title, text in methods.pages()}


def test_every_card_and_every_method_has_a_page() -> None:
    assert set(REWARD_PAGES) == set(cards())
    assert set(METHOD_PAGES) == set(METHODS)


@pytest.mark.parametrize("name", cards())
def test_a_reward_page_says_what_a_card_and_its_code_say(name: str) -> None:
    card, text = cards()[name], " ".join(REWARD_PAGES[name].split())
    for said in (card.unit, card.source, rewards.comment(name)):
        assert " ".join(said.split()).replace("|", "\\|") in text.replace("\\|", "|").replace("|", "\\|")
    first = docstring(card.target).partition("\n")[0]
    assert len(first) > 20
    assert first.split(";")[0].split(":")[0] in text
    assert rewards.comment(name), "a card says in its first lines what the reward is"


@pytest.mark.parametrize("name", METHODS)
def test_a_method_page_has_formula_source_cost_and_every_setting(name: str) -> None:
    text = METHOD_PAGES[name]
    assert "L = " in text
    assert "Source: " in text
    assert "asses per " in text
    for field in dataclasses.fields(METHODS[name][0]):
        row = next(line for line in text.splitlines() if f"--method.{field.name.replace('_', '-')} " in line)
        assert row.rstrip(" |").rpartition("|")[2].strip(), "a setting says what it means"


def test_the_cost_of_a_step_is_that_of_the_recipe() -> None:
    recipe = load_recipe("image/flow_dpo")  # both sides of 16 pairs, by policy and reference
    assert methods.cost(recipe) == "32 forward, 32 forward and backward, for 16 rows"


def test_measured_gains_are_those_of_the_runs_and_no_placebo_is_among_them() -> None:
    rows = [json.loads(line) for line in (ROOT / "benchmarks/matrix.jsonl").read_text().splitlines()]
    shown = measured.by_method()
    newest = {(row["recipe"], row["seed"], row["reward"]): row for row in rows}
    for row in newest.values():
        low, high = row["heldout_reward"]["ci95"]
        gain = f"{row['heldout_reward']['gain']:+.3f} [{low:+.3f}, {high:+.3f}]"
        assert (gain in shown) == (row["reward"] != "placebo"), (row["recipe"], row["seed"])


def test_a_table_keeps_bars_and_line_breaks_inside_their_cell() -> None:
    assert table(["a"], [["x | y\nz"]]).splitlines()[-1] == "| x \\| y z |"


def test_every_command_and_every_action_has_its_help() -> None:
    text = command_line.page()
    assert all(f"\n## mmalign {command}\n" in text for command in COMMANDS)
    for option in ("--train.steps", "--method.beta", "--against", "--backbone", "--threshold"):
        assert option in text
    assert "\x1b" not in text


def test_every_module_with_a_public_name_is_on_a_page() -> None:
    on_pages = [name for names in reference.modules().values() for name in names]
    assert len(on_pages) == len(set(on_pages)) > 200
    assert {"mmalign", "mmalign.losses.preference", "mmalign.errors"} <= set(on_pages)
    assert "mmalign.losses.preference.dpo_loss" in reference.public_names("mmalign.losses.preference")
    assert not [name for name in on_pages if "._" in name]


def test_a_name_that_no_page_shows_is_found(tmp_path: Path) -> None:
    site = tmp_path
    (site / "reference").mkdir()
    names = reference.public_names("mmalign.errors")
    page = "".join(f'<h2 id="{name}">' for name in names[1:])
    (site / "reference" / "mmalign.html").write_text(page)
    missing = checks.missing_names(site)
    assert names[0] in missing
    assert not set(names[1:]) & set(missing)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('<script src="https://cdn.example/x.js">', 1),
        ('<link rel="stylesheet" href="//fonts.example/x.css">', 1),
        ('<img alt="" src="http://example/x.png">', 1),
        ('<a href="https://example.org">', 0),
        ('<script src="../assets/x.js">', 0),
    ],
)
def test_what_a_page_would_fetch_elsewhere_is_found(text: str, found: int, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(text)
    assert len(checks.outside_requests(tmp_path)) == found
