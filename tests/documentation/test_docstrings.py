"""Docstrings as Markdown."""

from documentation.docstrings import docstring, markdown, mentioned, module, with_lists


def test_an_example_inside_a_text_ends_where_a_line_is_empty() -> None:
    text = markdown("One.\n\n>>> 1\n1\n>>> 2\n2\n\nTwo.")
    assert text == "One.\n\n```pycon\n>>> 1\n1\n>>> 2\n2\n```\n\nTwo."


def test_a_formula_stays_a_block_of_code() -> None:
    assert markdown("Sum.\n\n    L = a + b\n\nEnd.") == "Sum.\n\n    L = a + b\n\nEnd."


def test_a_continued_argument_is_one_item_and_the_text_after_a_section_is_none() -> None:
    text = with_lists("Does.\n\nArgs:\n    a: one\n        more.\n    b: two.\n\nSource: X.")
    assert text.splitlines()[2:] == ["**Args**", "", "- `a`: one more.", "- `b`: two.", "", "Source: X."]


def test_a_name_that_is_only_imported_is_found_at_its_home() -> None:
    home = docstring("mmalign.methods.configs.offline:FlowDPOConfig")
    assert home.startswith("Flow-DPO")
    assert docstring("mmalign.methods.configs:FlowDPOConfig") == home
    assert docstring("mmalign.methods.configs:Nothing") == ""


def test_the_function_that_a_scorer_points_to_is_found() -> None:
    assert mentioned("mmalign.rewards.sharpness:Sharpness") == ["mmalign.rewards.sharpness:sharpness"]
    assert module("mmalign.rewards").docstring is None
