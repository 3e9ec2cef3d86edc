"""The front door: light to open, and honest about what is behind it."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mmalign

ROOT = Path(__file__).resolve().parents[1]


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'numpy', 'diffusers', 'transformers', 'PIL', 'yaml'}"
    code = f"import mmalign, sys; mmalign.__version__; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", [name for name in mmalign.__all__ if name != "__version__"])
def test_each_public_name_is_the_object_of_its_home(name: str) -> None:
    value = getattr(mmalign, name)
    assert value is getattr(importlib.import_module(value.__module__), name)
    assert name in dir(mmalign)


def test_the_version_is_the_project_s() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert mmalign.__version__ == project["version"]


def test_an_unknown_name_is_an_error_with_the_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'load_rewards'"):
        mmalign.load_rewards  # type: ignore[attr-defined]  # noqa: B018


def test_a_near_name_is_suggested() -> None:
    code = "import mmalign; mmalign.load_rewards"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "Did you mean: 'load_reward'?" in done.stderr
