"""Views become a mesh and a film from the shell."""

from pathlib import Path

import pytest
import torch

from mmalign.cli.main import main
from mmalign.media import Mesh, Scene3D, Video
from mmalign.worlds import views
from mmalign.worlds.views import CAMERAS, Solid


def test_views_become_a_mesh_and_a_film(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = views.render([Solid("sphere", "blue", "large")], torch.Generator().manual_seed(0), view_px=16)[0]
    Scene3D(drawn, CAMERAS).save(tmp_path / "a.views.png")
    out, film = tmp_path / "a.glb", tmp_path / "a.gif"
    options = ["--steps", "60", "--voxels", "16", "--turntable-px", "16"]
    assert (
        main(["mesh", str(tmp_path / "a.views.png"), "--out", str(out), "--turntable", str(film), *options])
        == 0
    )
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    mesh = Mesh.load(out)
    radius = (mesh.vertices - mesh.vertices.mean(0)).norm(dim=1).mean().item()
    assert radius == pytest.approx(views.SIZES["large"], rel=0.12)
    assert mesh.colours is not None
    assert mesh.colours.mean(0).argmax() == 2
    assert Video.load(film).frames.shape[2:] == (16, 16)


def test_views_without_cameras_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Scene3D(torch.rand(4, 3, 8, 8)).save(tmp_path / "a.views.png")
    assert main(["mesh", str(tmp_path / "a.views.png"), "--out", str(tmp_path / "a.glb")]) == 2
    assert "with their cameras are needed" in capsys.readouterr().err
