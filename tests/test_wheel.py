"""A wheel is enough: what is in it, and the way from `init` to `recommend` without a clone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
Command = Callable[..., dict[str, Any]]


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--no-deps", "--no-build-isolation", "--quiet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--wheel-dir", str(folder), ".")
    (file,) = folder.glob("*.whl")
    return file


def test_the_wheel_has_the_package_the_recipes_and_the_cluster_files(wheel: Path) -> None:
    wanted = {
        str(path.relative_to(ROOT)): path.read_bytes()
        for path in (ROOT / "dist_gat").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    wanted |= {
        f"dist_gat/shipped/{path.relative_to(ROOT)}": path.read_bytes()
        for folder in ("configs", "launch")
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
    }
    with zipfile.ZipFile(wheel) as archive:
        inside = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
        assert inside == wanted
        (entry_points,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert "dist-gat = dist_gat.cli.main:main" in archive.read(entry_points).decode()
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        described = message_from_bytes(archive.read(metadata))
    assert described["Name"] == "dist-gat"
    assert any(line.startswith("torch") for line in described.get_all("Requires-Dist", []))


def empty_environment(folder: Path, *installed: str) -> Command:
    """`dist-gat --json` of a fresh virtual environment, run in `folder`, which is outside of the clone.

    dist-gat alone is installed; what it requires is found in the site-packages of these tests, through a .pth file,
    whose own .pth files, such as that of an editable dist-gat, are not followed.
    """
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "requirements.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip("--python", str(python), "install", *installed)
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def dist_gat(*arguments: str) -> dict[str, Any]:
        command = [str(environment / "bin" / "dist-gat"), *arguments, "--json"]
        done = subprocess.run(command, cwd=folder, env=outside, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return dist_gat


@pytest.mark.timeout(900)
@pytest.mark.slow  # six processes, with all imports anew
def test_from_init_to_recommend_with_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    dist_gat = empty_environment(tmp_path, str(wheel))
    where = "import dist_gat; print(dist_gat.__file__)"
    python = str(tmp_path / "environment" / "bin" / "python")
    found = subprocess.run([python, "-Ic", where], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert Path(found.strip()).is_relative_to(tmp_path), found

    assert "quality/tiktok" in dist_gat("recipes")["recipes"]
    dist_gat("data", "synthetic", "--users", "150", "--items", "200")
    recipe = dist_gat("init", "--for", "shop", "data/synthetic/interactions.csv", "--output", "first.yaml")["recipe"]
    dist_gat("prepare", recipe)
    trained = dist_gat("train", recipe, "launch.launcher=local", "train.num_epochs=1")
    assert trained["best_epoch"] == 1
    found = dist_gat("recommend", trained["run"], "--user", "u1", "--k", "5")["recommendations"]
    assert [row["rank"] for row in found] == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_an_editable_install_has_the_recipes_of_the_clone(tmp_path: Path) -> None:
    dist_gat = empty_environment(tmp_path, "--editable", str(ROOT))
    assert dist_gat("recipes", "ml-100k")["text"] == (ROOT / "configs" / "ml-100k.yaml").read_text()
    assert "launch/kuberay.yaml" in dist_gat("recipes")["recipes"]
    assert not list(tmp_path.rglob("shipped")), "a copy that grows old"
