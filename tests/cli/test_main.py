"""The command line: the whole flow as a user types it, JSON alone on standard output, errors without traceback.

Nearly all of it in this process, down to the file descriptors; starting Python and torch takes longer than the verbs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from helpers import write_pairs

from dist_gat import __version__
from dist_gat.cli import main
from dist_gat.data.synthetic import write_synthetic
from dist_gat.pages.figures import with_error

DistGat = Callable[..., subprocess.CompletedProcess[str]]

RECIPE = """
name: tiny
run: run
data:
  path: raw
  interactions: interactions.csv
  item_titles: {path: items.csv, id_column: item_id, columns: [title]}
  prepared: prepared
parts: {num_parts: 2, method: metis}
sampling: {fanouts: [4]}
negatives: {num_shared: 32}
model: {embedding_size: 16}
train: {num_epochs: 1, batch_size: 512}
evaluate: {ks: [10, 20]}
launch: {launcher: local, num_workers: 1}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    write_synthetic(folder / "raw", 120, 80, 4, 10, 0.1, seed=0)
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture
def dist_gat(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> DistGat:
    """Run a command line in a folder; the exit code, and what went to file descriptors 1 and 2."""

    def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["dist-gat", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            main.main()
        return subprocess.CompletedProcess(arguments, int(caught.value.code or 0), *capfd.readouterr())

    return run


def in_a_process(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dist_gat.cli.main", *arguments]
    variables = {**os.environ, **(environment or {})}
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=240, check=False, env=variables
    )  # fmt: skip


def json_of(done: subprocess.CompletedProcess[str]) -> dict:
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1, done.stdout
    return json.loads(done.stdout)


def test_the_whole_flow_prints_one_json_object_a_verb(folder: Path, dist_gat: DistGat) -> None:
    prepared = json_of(dist_gat(folder, "prepare", "recipe.yaml", "--json"))
    assert sum(sum(counts) for counts in prepared["split_counts"]["interacts"].values()) == 1200
    assert 0 < prepared["partition"]["edge_cut"] < 1
    inspected = json_of(dist_gat(folder, "inspect", "prepared", "--html", "data.html", "--json"))
    assert inspected["pairs"]["interacts"] == {
        split: sum(counts) for split, counts in prepared["split_counts"]["interacts"].items()
    }
    assert "<svg" in (folder / "data.html").read_text()
    tables = dist_gat(folder, "inspect", "prepared").stdout
    assert all(word in tables for word in ("prepared tiny", "messages a node", "look at twice", "2 parts by metis"))
    trained = json_of(dist_gat(folder, "train", "recipe.yaml", "train.num_epochs=2", "--json"))
    assert trained["epochs"] == 2
    evaluated = json_of(dist_gat(folder, "evaluate", "recipe.yaml", "--baseline", "popularity", "--json"))
    assert 0 < evaluated["test"]["recall@20"] <= 1
    assert evaluated["baselines"]["popularity"]["test"].keys() == evaluated["test"].keys()
    assert evaluated["slices"]["test"].keys() == {"users", "items", "beyond_accuracy"}
    few = dist_gat(folder, "compare", "recipe.yaml", "--models", "popularity", "evaluate.num_users=20").stdout
    assert "full ranking over all items of 20 sampled users" in few
    tables = dist_gat(folder, "evaluate", "recipe.yaml", "--slices").stdout
    assert all(word in tables for word in ("by activity", "q4", "by popularity", "head", "coverage@20", "diversity@20"))
    chosen = ("--models", "popularity, ease", "--model", "recipe")
    compared = json_of(dist_gat(folder, "compare", "recipe.yaml", "train.num_epochs=2", *chosen, "--json"))
    assert list(compared["models"]) == ["popularity", "ease", "recipe"]
    assert compared["models"]["recipe"]["metrics"] == evaluated["test"]
    users = ("--user", "u1", "--user", "u2")
    found = json_of(dist_gat(folder, "recommend", "run", *users, "--k", "3", "--json"))["recommendations"]
    assert [(row["user_id"], row["rank"]) for row in found] == [(u, rank) for u in ("u1", "u2") for rank in (1, 2, 3)]
    why = json_of(dist_gat(folder, "explain", "run", "--user", "u1", "--html", "why.html", "--json"))
    assert why["item"]["item_id"] == found[0]["item_id"]
    assert why["score"] == pytest.approx(found[0]["score"], abs=1e-5)
    assert "<svg" in (folder / "why.html").read_text()
    asked = dist_gat(folder, "explain", "recipe.yaml", "--user", "u1", "--item", "i5", "--top", "3")
    assert asked.returncode == 0, asked.stderr
    assert "3 of" in asked.stdout
    page = json_of(dist_gat(folder, "report", "run", "--json"))
    assert with_error(evaluated["test"]["recall@20"], evaluated["spread"]["test"]["recall@20"]) in (
        folder / page["report"]
    ).read_text(encoding="utf-8")
    people = dist_gat(folder, "recommend", "run/model", "--user", "u1")
    assert people.returncode == 0
    assert "community" in people.stdout


def test_the_evaluation_of_clicks_tells_precision_and_slices(folder: Path, dist_gat: DistGat) -> None:
    lines = [f"u{u},i{i},{(u * i) % 3 % 2}" for u in range(30) for i in range(u % 2, 24, 2)]
    (folder / "raw" / "clicks.csv").write_text("\n".join(["user_id,item_id,weight", *lines]))
    overrides = ("data.interactions=clicks.csv", "data.prepared=clicks", "run=click-run", "task={kind: click}")
    json_of(dist_gat(folder, "prepare", "recipe.yaml", *overrides, "--json"))
    json_of(dist_gat(folder, "train", "recipe.yaml", *overrides, "--json"))
    done = dist_gat(folder, "evaluate", "recipe.yaml", *overrides, "--slices")
    assert done.returncode == 0, done.stderr
    for words in ("± over users", "the threshold of best F1 on validation", "f1-score", "by activity", "q4"):
        assert words in done.stdout, done.stdout
    assert "by activity" not in dist_gat(folder, "evaluate", "recipe.yaml", *overrides).stdout
    found = json_of(dist_gat(folder, "evaluate", "recipe.yaml", *overrides, "--json"))
    assert found["details"]["test"]["kind"] == "classification"
    assert found["slices"]["test"]["users"]["cold"]["auc"] is None, "of no pairs"
    sampled = dist_gat(folder, "evaluate", "recipe.yaml", *overrides, "evaluate.num_users=9", "--slices")
    assert " ".join(sampled.stdout.split()).count("of 9 sampled users") == 4, sampled.stdout
    page = json_of(dist_gat(folder, "report", "click-run", "--json"))["report"]
    text = (folder / page).read_text(encoding="utf-8")
    # those with test pairs
    assert "9 users, a sample of 23," in text
    assert "Of a fixed sample of the users" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "nowhere.yaml"], ["nowhere.yaml", "dist-gat recipes"]),
        (["train", "recipe.yaml", "model.num_hedas=2"], ["model.num_hedas", "did you mean model.num_heads?"]),
        (["train", "recipe.yaml", "model.num_heads=two"], ["model.num_heads", "integer", "'two'"]),
        (["train", "recipe.yaml", "data.prepared=elsewhere"], ["elsewhere", "dist-gat prepare"]),
        (["prepare", "recipe.yaml", "data.interactions=no.csv"], ["no.csv"]),
        (["evaluate", "recipe.yaml", "run=empty"], ["empty", "dist-gat train"]),
        (["compare", "recipe.yaml", "--models", "popularity,svd"], ["svd", "gfcf"]),
        (["data", "fetch", "netflix"], ["netflix", "movielens-100k"]),
        (["recommend", "nowhere", "--user", "1"], ["nowhere"]),
        (["explain", "recipe.yaml", "run=empty", "--user", "1"], ["empty", "dist-gat train"]),
        (["report", "raw"], ["raw", "config.yaml", "dist-gat train"]),
        (["inspect", "raw"], ["raw", "manifest.json", "dist-gat prepare"]),
    ],
)
def test_errors_say_what_and_what_to_do_without_a_traceback(
    folder: Path, dist_gat: DistGat, arguments: list[str], words: list[str]
) -> None:
    done = dist_gat(folder, *arguments, "--json")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert not (folder / "elsewhere").exists()


def test_a_process_prints_one_object_or_an_error_and_its_exit_code_tells(folder: Path) -> None:
    made = json_of(in_a_process(folder, "prepare", "recipe.yaml", "data.prepared=by-a-process", "--json"))
    assert Path(folder, made["prepared"]).is_dir()
    failed = in_a_process(folder, "train", "recipe.yaml", "data.prepared=elsewhere", "--json")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("error: elsewhere/manifest.json: not found"), "and nothing of workers before"
    assert "dist-gat prepare" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_skip_bad_rows_drops_and_counts(folder: Path, dist_gat: DistGat) -> None:
    text = (folder / "raw" / "interactions.csv").read_text()
    (folder / "raw" / "dirty.csv").write_text(text + ",i1,1600000000\nu1,i2\n")
    arguments = ("prepare", "recipe.yaml", "data.interactions=dirty.csv", "data.prepared=dirty", "--json")
    refused = dist_gat(folder, *arguments)
    assert refused.returncode == 1
    assert "dirty.csv" in refused.stderr
    assert not (folder / "dirty").exists()
    assert sum(json_of(dist_gat(folder, *arguments, "--skip-bad-rows"))["dropped"].values()) == 2


def test_hostile_ids_and_titles_reach_the_terminal_escaped(folder: Path, dist_gat: DistGat) -> None:
    """In what `recommend` prints, and in what `prepare` says of bad rows; as JSON they come back as they went in."""
    user, title = "\x1b[2J[red]u", "=HYPERLINK(1)\x07:smile:\u202e"
    lines = [f"u{u},i{i}" for u in range(6) for i in range(8)] + [f"{user},i0", f"{user},i1"]
    (folder / "raw" / "hostile.csv").write_text("\n".join(["user_id,item_id", *lines]))
    (folder / "raw" / "titles.csv").write_text("item_id,title\n" + "".join(f"i{i},{title}{i}\n" for i in range(8)))
    titles = "data.item_titles.path=titles.csv"
    split = "data.split.test_ratio=0"
    overrides = ("data.interactions=hostile.csv", titles, "data.prepared=hostile", "run=hostile-run", split)
    json_of(dist_gat(folder, "prepare", "recipe.yaml", *overrides, "--json"))
    json_of(dist_gat(folder, "train", "recipe.yaml", *overrides, "--verify", "--json"))
    people = dist_gat(folder, "recommend", "hostile-run", "--user", user, "--k", "2", "--verify")
    assert people.returncode == 0, people.stderr
    assert r"\x1b[2J[red]u" in people.stdout
    assert r"=HYPERLINK(1)\x07:smile:\u202e" in people.stdout
    assert "checking the SHA-256 of" in people.stderr
    found = json_of(dist_gat(folder, "recommend", "hostile-run", "--user", user, "--k", "2", "--json"))
    assert {row["user_id"] for row in found["recommendations"]} == {user}
    unknown = dist_gat(folder, "recommend", "hostile-run", "--user", user + "x")
    assert r"unknown user '\x1b[2J[red]ux'" in unknown.stderr
    (folder / "raw" / "hostile.csv").write_text(f"user_id,item_id\n{user},i0\n{user},i0\n")
    refused = dist_gat(folder, "prepare", "recipe.yaml", *overrides, "data.repeated=error")
    assert r"user '\x1b[2J[red]u', item 'i0'" in refused.stderr
    for done in (people, unknown, refused):
        assert not {"\x1b", "\x07", "\u202e"} & set(done.stdout + done.stderr)


def test_synthetic_data_fit_their_recipe(tmp_path: Path, dist_gat: DistGat) -> None:
    made = json_of(
        dist_gat(tmp_path, "data", "synthetic", "--users", "60", "--items", "80", "--communities", "2", "--json")
    )
    assert (tmp_path / made["folder"] / "interactions.csv").exists()
    recipe = Path(__file__).parent.parent.parent / "configs" / "synthetic.yaml"
    prepared = json_of(dist_gat(tmp_path, "prepare", str(recipe), "parts.method=range", "--json"))
    assert prepared["num_nodes"]["user"] == 60


def test_public_data_sets_are_listed_with_licence_and_source(tmp_path: Path, dist_gat: DistGat) -> None:
    listed = json_of(dist_gat(tmp_path, "data", "list", "--json"))
    assert listed.keys() == {"movielens-100k", "gowalla", "yelp2018", "amazon-book"}
    assert all(entry["licence"] and entry["source"] and entry["by_hand"] for entry in listed.values())


def test_names_of_files_may_have_a_tilde_and_variables(
    folder: Path, dist_gat: DistGat, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TABLES", str(folder / "raw"))
    monkeypatch.delenv("NOWHERE", raising=False)
    overrides = ("data.path=$TABLES", "data.interactions=${TABLES}/interactions.csv", "data.prepared=~/parts")
    made = json_of(dist_gat(folder, "prepare", "recipe.yaml", *overrides, "--json"))
    assert made["prepared"] == str(tmp_path / "home" / "parts")
    assert not list(folder.glob("*~*"))
    refused = dist_gat(folder, "prepare", "recipe.yaml", "data.prepared=$NOWHERE/parts")
    assert "data.prepared: the environment variable NOWHERE is not set" in refused.stderr
    assert "~ alone is null in YAML: write ~/" in dist_gat(folder, "prepare", "recipe.yaml", "data.path=~").stderr
    table = json_of(
        dist_gat(folder, "init", "--for", "shop", "$TABLES/interactions.csv", "--output=~/r.yaml", "--json")
    )
    assert table["recipe"] == str(tmp_path / "home" / "r.yaml")
    assert "NOWHERE is not set" in dist_gat(folder, "prepare", "$NOWHERE/recipe.yaml").stderr


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii:strict"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_a_terminal_without_unicode_shows_question_marks(folder: Path, environment: dict[str, str]) -> None:
    """Tables, progress and errors, in a process of its own, since the encoding is that of its streams."""
    for arguments in (["prepare", "recipe.yaml", "data.prepared=plain"], ["prepare", "r\u00e9cipe.yaml"]):
        done = in_a_process(folder, *arguments, environment={"PYTHONCOERCECLOCALE": "0", **environment})
        assert "Traceback" not in done.stderr
        assert (done.returncode, bool(done.stdout)) == ((0, True) if "recipe.yaml" in arguments else (1, False))
        assert (done.stdout + done.stderr).isascii()


def test_the_version(folder: Path, dist_gat: DistGat) -> None:
    done = dist_gat(folder, "--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"dist-gat {__version__}")


def test_recommendations_for_many_go_to_a_table(folder: Path, dist_gat: DistGat) -> None:
    """And a user who has met everything is told so."""
    pairs = [(0, item) for item in range(9)] + [(user, item) for user in range(1, 12) for item in range(user % 3, 9, 2)]
    write_pairs(folder / "raw" / "few.csv", pairs)
    split = "data.split={valid_ratio: 0, test_ratio: 0}"
    overrides = ("data.interactions=few.csv", "data.item_titles=null", split, "data.prepared=few", "run=few-run")
    warned = dist_gat(folder, "prepare", "recipe.yaml", *overrides)
    assert "warning: no validation and no test interactions: " in warned.stdout
    trained = dist_gat(folder, "train", "recipe.yaml", *overrides)
    assert "no validation interactions: the model is that of epoch 1, the last" in trained.stdout
    done = json_of(dist_gat(folder, "recommend", "few-run", "--all-users", "--output", "all.csv", "--k", "2", "--json"))
    assert (done["users"], done["met_everything"]) == (12, 1)
    (folder / "users.txt").write_text("3\n0\n")
    for_two = ("--users", "users.txt", "--output", "two.parquet", "--k", "2")
    told = dist_gat(folder, "recommend", "recipe.yaml", *overrides, *for_two)
    assert "2 rows of 2 users in two.parquet" in told.stdout
    assert "1 users have met every item" in told.stdout
    alone = dist_gat(folder, "recommend", "few-run", "--user", "0", "--user", "3")
    assert "user 0 has met every item" in alone.stdout
    assert json_of(dist_gat(folder, "recommend", "few-run", "--user", "0", "--json"))["met_everything"] == ["0"]
    printed = json_of(dist_gat(folder, "recommend", "few-run", "--users", "users.txt", "--json"))
    assert {row["user_id"] for row in printed["recommendations"]} == {3}
    both = ["--user", "1", "--all-users", "--output", "x.csv"]
    for arguments in ([], ["--all-users"], both, ["--user", "1", "--output", "x.csv"]):
        refused = dist_gat(folder, "recommend", "few-run", *arguments)
        assert (refused.returncode, "--all-users" in refused.stderr) == (1, True)
    for verb in ("recommend", "explain"):
        assert "nosuch: no such run folder" in dist_gat(folder, verb, "runs/nosuch", "--user", "1").stderr
