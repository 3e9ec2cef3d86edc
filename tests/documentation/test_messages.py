"""The messages that the page of troubles quotes are the code's own."""

import ast
import re

import pytest

from documentation.docstrings import ROOT

PAGE = (ROOT / "docs" / "when-it-goes-wrong.md").read_text(encoding="utf-8")
QUOTED = [
    text.strip() for text in re.findall(r"^ *```text\n(.*?)^ *```", PAGE, flags=re.DOTALL | re.MULTILINE)
]
TABLE = re.findall(r"^\| `([^`]+)` \|", PAGE, flags=re.MULTILINE)


def pattern(node: ast.expr) -> str | None:
    """What a text of the source can become: fixed words, and anything where a value is put in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.escape(node.value)
    if isinstance(node, ast.JoinedStr):
        parts = (pattern(part) if isinstance(part, ast.Constant) else ".*" for part in node.values)
        return "".join(part or "" for part in parts)
    return None


def patterns() -> list[re.Pattern[str]]:
    """Of every text in the package that is long enough to be a message."""
    found = []
    for path in (ROOT / "mmalign").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = pattern(node) if isinstance(node, ast.expr) else None
            if text is not None and len(text.replace(".*", "")) > 20:
                found.append(re.compile(text))
    return found


MESSAGES = patterns()


def test_the_page_quotes_some() -> None:
    assert len(QUOTED) >= 11
    assert len(TABLE) >= 8
    assert len(MESSAGES) > 1000


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_quoted_message_is_one_of_the_code(quoted: str) -> None:
    assert any(message.fullmatch(quoted) for message in MESSAGES), quoted


@pytest.mark.parametrize("part", TABLE)
def test_what_a_refusal_has_is_in_the_code(part: str) -> None:
    plain = [message.pattern.replace("\\", "") for message in MESSAGES]
    assert any(part in text for text in plain), part
