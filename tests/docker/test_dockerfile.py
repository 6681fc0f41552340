"""Each RUN line of docker/Dockerfile, executed in a root of Debian's bookworm with Debian's Python 3.11.

That stands for the base image, whose Python is another build of the same version on the same Debian. What a container
engine does beside it, layers, networks and volumes, is not tried.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent.parent
BASE = "python:3.11-slim"
# what the base image has beside Debian's smallest system
OF_BASE = "ca-certificates,python3,python3-pip,python3-venv"


def why_not() -> str | None:
    """What is missing here; None: nothing is."""
    if os.geteuid() != 0:
        return "only root may change the root"
    for tool in ("debootstrap", "chroot", "unshare"):
        if shutil.which(tool) is None:
            return f"needs {tool}"
    if not torch.__version__.endswith("+cpu"):
        return "needs the CPU build of torch, which is asked for by its version"
    return None


pytestmark = [
    pytest.mark.slow, pytest.mark.timeout(3000), pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]  # fmt: skip


@dataclass
class Image:
    """A root folder, and what the lines so far have set."""

    root: Path
    environment: dict[str, str]
    arguments: dict[str, str] = field(default_factory=dict)
    shared: list[Path] = field(default_factory=list)
    folder: str = "/"
    user: str = "root"

    def run(self, *command: str, **more: str) -> str:
        """What the command says. Mounts end with it, for they are those of a namespace of its own."""
        kinds = {"proc": "proc", "dev/shm": "tmpfs"}
        steps = [shlex.join(["mount", "-t", kind, kind, str(self.root / name)]) for name, kind in kinds.items()]
        for path in self.shared:
            inside = self.root / path.relative_to("/")
            inside.parent.mkdir(parents=True, exist_ok=True)
            inside.mkdir(exist_ok=True) if path.is_dir() else inside.touch()
            steps.append(shlex.join(["mount", "--bind", str(path), str(inside)]))
        chroot = ["chroot", f"--userspec={self.user}", str(self.root), "sh", "-c", 'cd "$0" && exec "$@"', self.folder]
        steps.append(f"exec {shlex.join([*chroot, *command])}")
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", " && ".join(steps)],
            env={**self.environment, **more}, capture_output=True, text=True, timeout=2400, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout


def settings_of_pip() -> dict[str, str]:
    """Where this environment's pip looks for packages, as variables."""
    told = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    pairs = (re.fullmatch(r"(?::env:|\w+)\.([\w-]+)='(.*)'", line) for line in told.stdout.splitlines())
    return {f"PIP_{pair[1].replace('-', '_').upper()}": pair[2] for pair in pairs if pair is not None}


def paths_in(settings: dict[str, str]) -> list[Path]:
    """Files and folders of this machine that pip's settings name; the pages of an index link to files beside it."""
    found = set()
    for word in " ".join(settings.values()).split():
        path = Path(word.removeprefix("file://"))
        if path.is_absolute() and path.exists():
            found.add(path.parent if word.startswith("file://") else path)
    return sorted(found)


def lines_of(dockerfile: str) -> Iterator[tuple[str, str]]:
    """Instruction and the rest of each line."""
    text = re.sub(r"^#.*\n", "", dockerfile, flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, rest = line.partition(" ")
        yield name, rest.strip()


def build(image: Image) -> list[str]:
    """Do what each line says. Returns the words of the command that a container starts."""
    started: list[str] = []
    for name, rest in lines_of((ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")):
        if name == "RUN":
            image.run("sh", "-c", rest, **image.arguments)
        elif name == "ARG":
            key, _, value = rest.partition("=")
            image.arguments.setdefault(key, value.strip('"'))
        elif name == "ENV":
            image.environment |= dict(word.split("=", 1) for word in rest.split())
        elif name == "WORKDIR":
            image.folder = rest
            (image.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif name == "USER":
            image.user = rest
        elif name == "COPY":
            copy_into(image, rest.split())
        elif name in ("ENTRYPOINT", "CMD"):
            started += json.loads(rest)
        else:
            assert (name, rest) == ("FROM", BASE) or name == "EXPOSE", (name, rest)
    return started


def copy_into(image: Image, words: list[str]) -> None:
    *sources, target = words
    for source in sources:
        inside = image.root / image.folder.lstrip("/") / target
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, inside, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, inside)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    root = tmp_path_factory.mktemp("image") / "root"
    command = ["debootstrap", "--variant=minbase", f"--include={OF_BASE}", "bookworm", str(root)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout[-3000:]
    # the base image's Python is not one that Debian manages
    for managed in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        managed.unlink()
    settings = settings_of_pip()
    environment = {"PATH": "/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin", "HOME": "/root", "LANG": "C.UTF-8"}
    yield Image(root, environment | settings, {"TORCH": f"torch=={torch.__version__}"}, paths_in(settings))
    shutil.rmtree(root)


def test_the_lines_build_what_a_container_starts(image: Image) -> None:
    started = build(image)
    assert (image.user, image.folder) == ("dist-gat", "/shared")
    image.environment["HOME"] = "/home/dist-gat"
    assert "recommend" in image.run(*started)
    found = json.loads(image.run("sh", "-c", "dist-gat doctor --json || true"))["findings"]
    # on a busy machine Ray may not start within its own minute
    assert {name for name, one in found.items() if one["status"] == "bad"} <= {"ray health"}, found
    # a run of a container's user, in the folder that is a volume there
    recipe = "/opt/dist-gat/configs/synthetic.yaml"
    small = ["train.num_epochs=1", "launch.launcher=local"]
    image.run("dist-gat", "data", "synthetic")
    image.run("dist-gat", "prepare", recipe)
    image.run("dist-gat", "train", recipe, *small)
    assert "serve" in image.run("dist-gat", "serve", "--help")
    image.run("python3", "-c", "import fastapi, uvicorn, prometheus_client, ray")
    image.run("wget", "--version")
