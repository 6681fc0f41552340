"""What an operator copies from launch/ and docker/ is true: files parse, commands name real settings and options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from dist_gat.config.files import load_config

ROOT = Path(__file__).parent.parent.parent
YAML_FILES = [*sorted((ROOT / "launch").glob("*.yaml")), *sorted((ROOT / "docker").glob("*.yaml"))]
PAGES = [ROOT / "launch" / "README.md", ROOT / "docker" / "README.md"]
IN_IMAGE = "/opt/dist-gat"


def read_yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def commands() -> list[list[str]]:
    """The words of every command line in the pages' shell blocks and in the YAML files."""
    lines = [read_yaml("launch/kuberay.yaml")["spec"]["entrypoint"]]
    lines += [service["command"] for service in read_yaml("docker/compose.yaml")["services"].values()]
    cluster = read_yaml("launch/cluster.yaml")
    lines += cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"]
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
            lines += block.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def after(words: list[str], *names: str) -> list[str] | None:
    """The arguments behind the words `names` of a command line, or None where they are not in it."""
    for at in range(len(words)):
        if words[at : at + len(names)] == list(names):
            return words[at + len(names) :]
    return None


def recipes() -> list[tuple[str, ...]]:
    """Recipe and overrides of every command that takes them."""
    found = []
    for words in commands():
        arguments = [words[n + 2 :] for n, word in enumerate(words) if word == "dist-gat" and words[n + 1] in VERBS]
        found += [
            tuple(w for w in rest if not w.startswith("-") and (w.endswith(".yaml") or "=" in w)) for rest in arguments
        ]
    return found


VERBS = ("prepare", "train", "evaluate", "submit")


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_yaml_parses(path: Path) -> None:
    assert all(isinstance(one, dict) for one in yaml.safe_load_all(path.read_text(encoding="utf-8")))


def test_there_are_commands_to_check() -> None:
    assert len(recipes()) >= 6


@pytest.mark.parametrize("recipe", recipes(), ids=" ".join)
def test_every_recipe_loads_with_its_overrides(recipe: tuple[str, ...]) -> None:
    path = recipe[0].removeprefix(f"{IN_IMAGE}/")
    load_config(ROOT / path, recipe[1:])


def test_every_ray_command_has_only_options_that_exist() -> None:
    from ray.scripts.scripts import cli

    checked = 0
    for words in commands():
        if (arguments := after(words, "ray", "start")) is not None:
            known = {option for parameter in cli.commands["start"].params for option in parameter.opts}
            given = {word.partition("=")[0] for word in arguments if word.startswith("--")}
            assert given <= known, words
            checked += 1
    assert checked >= 7


def test_the_files_for_ray_up_and_docker_fit_the_repository() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(read_yaml("launch/cluster.yaml")))
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    kept = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for copy in re.findall(r"^COPY (.*)$", dockerfile, flags=re.MULTILINE):
        for source in copy.split()[:-1]:
            assert (ROOT / source).exists()
            assert f"!{source}" in kept
    build = read_yaml("docker/compose.yaml")["services"]["head"]["build"]
    assert (ROOT / "docker" / build["context"] / build["dockerfile"]).exists()
    assert set(build["args"]) <= set(re.findall(r"^ARG (\w+)", dockerfile, flags=re.MULTILINE))


def test_nothing_is_open_to_strangers() -> None:
    compose = read_yaml("docker/compose.yaml")["services"]
    assert all(port.startswith("127.0.0.1:") for service in compose.values() for port in service.get("ports", []))
    nodes = [compose["head"], compose["worker"]]
    assert all(node["environment"]["RAY_AUTH_MODE"] == "token" and node["secrets"] for node in nodes)
    assert read_yaml("launch/kuberay.yaml")["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    cluster = read_yaml("launch/cluster.yaml")
    for line in cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"]:
        assert "ray start" not in line or "RAY_AUTH_MODE=token" in line
