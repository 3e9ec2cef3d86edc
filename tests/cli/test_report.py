"""``mmalign report`` and ``mmalign env`` as a shell sees them."""

import json
from pathlib import Path

import pytest

from mmalign.cli.main import main


def test_the_report_is_written_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.yaml").write_text("name: image/d3po\n")
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n"
    assert "This run is not finished" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "README.md").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--port 8000", "--host, --port and --token belong to --serve"),
        ("--serve --host 0.0.0.0", "can be reached by others"),
        ("--serve", "not a run folder"),
    ],
)
def test_what_cannot_be_served_is_refused(
    options: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path), *options.split()]) == 2
    assert message in capsys.readouterr().err


def test_the_environment_names_versions_and_no_places(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    assert main(["env", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["torch"] == torch.__version__.partition("+")[0]
    assert int(found["cores"]) >= 1
    assert not any(str(Path.home()) in value or str(Path.cwd()) in value for value in found.values())
    assert main(["env"]) == 0
    assert any(line.split() == ["torch", found["torch"]] for line in capsys.readouterr().out.splitlines())
