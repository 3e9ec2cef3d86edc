"""The README's first command as it stands; all its commands, shortened, are run by test_pages."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_first_command_as_it_stands(tmp_path: Path) -> None:
    found = re.search(r"uv run mmalign (.+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert found is not None
    assert found[1].startswith("align ")
    done = subprocess.run(
        [sys.executable, "-m", "mmalign", *shlex.split(found[1])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / done.stdout.splitlines()[-1] / "summary.json").read_text())
    assert summary["heldout_reward"]["ci95"][0] > 0.02
    assert summary["heldout_reward"]["n"] >= 512
