"""README and docs are true: their commands parse, their recipes load, their Python runs."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from dist_gat import api
from dist_gat.cli.main import app
from dist_gat.config.files import load_config, parse_config
from dist_gat.tune.search_space import read_space

ROOT = Path(__file__).parent.parent
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *GUIDES, ROOT / "launch" / "README.md"]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def recipes(page: Path) -> dict[str, dict[str, Any]]:
    """The whole recipes that a page shows, by name."""
    shown = [yaml.safe_load(text) for text in blocks(page, "yaml")]
    return {recipe["name"]: recipe for recipe in shown if "name" in recipe and "data" in recipe}


def dist_gat_commands() -> list[tuple[Path, list[str]]]:
    """(page, arguments) of every `dist-gat …` line in a shell block, comments and environment left out."""
    found = []
    for page in PAGES:
        for line in "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            starts = [n for n, word in enumerate(words) if word.endswith("dist-gat")]
            if starts:
                found.append((page, words[starts[0] + 1 :]))
    return found


def test_there_are_commands_to_check() -> None:
    assert len(dist_gat_commands()) >= 8


@pytest.mark.parametrize(("page", "arguments"), dist_gat_commands(), ids=str)
def test_every_command_of_the_documents_is_valid(page: Path, arguments: list[str], tmp_path: Path) -> None:
    """The verb exists, its options exist, and its recipe loads with its overrides: a file of ours, or one that the page
    shows."""
    command = typer.main.get_command(app)
    while isinstance(command, typer.core.TyperGroup):
        command = command.commands[arguments.pop(0)]
    context = command.make_context("dist-gat", list(arguments))
    if "config" in context.params:
        path = ROOT / context.params["config"]
        if shown := recipes(page).get(path.stem):
            path = tmp_path / path.name
            path.write_text(yaml.safe_dump(shown))
        config = load_config(path, context.params["overrides"] or [])
        if "space" in context.params:
            read_space(ROOT / context.params["space"], config)


@pytest.mark.parametrize(
    "verb",
    [
        "init",
        "prepare",
        "encode",
        "inspect",
        "train",
        "submit",
        "evaluate",
        "compare",
        "tune",
        "recommend",
        "serve",
        "predict",
        "explain",
        "report",
        "doctor",
        "data",
        "plan",
        "recipes",
    ],
)
def test_help_of_every_verb_has_an_example(verb: str) -> None:
    arguments = [verb, "fetch", "--help"] if verb == "data" else [verb, "--help"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert f"Example: dist-gat {verb}" in " ".join(result.output.split())


def test_recipes_in_the_documents_load() -> None:
    for page in PAGES:
        for recipe in recipes(page).values():
            parse_config(recipe)


def test_each_guide_has_a_recipe_and_how_to_make_train_and_test_it() -> None:
    assert [page.stem for page in GUIDES] == ["music", "news", "shop", "social", "video"]
    for page in GUIDES:
        verbs = {arguments[0] for found, arguments in dist_gat_commands() if found == page}
        assert recipes(page), page.name
        assert verbs >= {"init", "fit", "compare"}, page.name
        assert verbs & {"recommend", "predict"}, page.name


def test_the_python_of_the_readme_uses_functions_that_exist() -> None:
    code = "\n".join(blocks(ROOT / "README.md", "python"))
    compile(code, "README.md", "exec")
    names = set(re.findall(r"api\.(\w+)\(", code))
    assert names >= {"prepare", "train", "evaluate", "recommend"}
    for name in names:
        assert callable(getattr(api, name))
    recipe, overrides = re.findall(r'load_config\("([^"]+)", (\[.*?\])\)', code)[0]
    load_config(ROOT / recipe, yaml.safe_load(overrides))


def test_the_page_of_settings_is_the_configuration() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from configuration import configuration_page
    finally:
        sys.path.pop(0)
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == configuration_page(), "run `python docs/configuration.py`"


def test_the_table_of_speed_is_the_committed_result_file() -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    (file,) = (ROOT / "benchmarks" / "results").glob("cpu-*.json")
    for line in json.loads(file.read_text(encoding="utf-8")):
        row = f"| {line['line']} | {line['peer']} | {line['ratio']:.2f} | {line['bar']:g} |"
        assert row in page, f"{file.name} has {row}"


def test_the_numbers_of_speed_in_the_readme_are_those_of_the_committed_result_file() -> None:
    (file,) = (ROOT / "benchmarks" / "results").glob("cpu-*.json")
    measured = {(x["line"], x["peer"]): f"{x['ratio']:.2f}" for x in json.loads(file.read_text(encoding="utf-8"))}
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Speed\n")[1].split("\n## ")[0]
    _, _, *rows = [line for line in section.splitlines() if line.startswith("|")]
    assert len(rows) >= 10
    for row in rows:
        line, peer, times = (cell.strip() for cell in row.strip("|").split("|"))
        assert measured[line, peer] == times, row


def test_the_table_of_predictions_is_the_committed_result_file() -> None:
    page = (ROOT / "docs" / "quality.md").read_text(encoding="utf-8")
    for x in json.loads((ROOT / "benchmarks" / "results" / "quality.json").read_text(encoding="utf-8")):
        digits = 1 if x["value"] > 100 else 4
        value, spread, bar = (f"{x[name]:.{digits}f}" for name in ("value", "spread", "bar"))
        peer = "" if x["peer_value"] is None else f"{x['peer']} {x['peer_value']:.{digits}f}"
        row = f"| {x['data']} | {x['metric']} | {value} ± {spread} | {bar} | {peer} |"
        assert row in page, f"quality.json has {row}"


def test_the_plans_in_the_documents_are_what_the_commands_print(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "plan.md").read_text(encoding="utf-8")
    shown = re.findall(r"```bash\ndist-gat (plan [^`]*)```\s+```text\n([^`]*)```", page)
    assert len(shown) == 2
    monkeypatch.chdir(ROOT)
    for command, output in shown:
        printed = CliRunner().invoke(app, shlex.split(command.replace("\\\n", " "))).stdout
        assert [line.rstrip() for line in printed.splitlines()] == output.splitlines()


def test_links_between_documents_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"
