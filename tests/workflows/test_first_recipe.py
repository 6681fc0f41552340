"""`init`: the recipe of a table loads, and prepares and trains as it is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from dist_gat import api
from dist_gat.base.errors import ConfigError, DataError
from dist_gat.cli.main import app
from dist_gat.workflows.first_recipe import FIELDS, batch_size, recipe_name

SHORT = ["train.num_epochs=1", "model.embedding_size=16", "parts.method=hash", "launch.threads_per_worker=1"]


def write_table(folder: Path, name: str) -> Path:
    """Interactions with odd column names, a repeated pair, and labels of all kinds."""
    rng = np.random.default_rng(2)
    users, items = np.divmod(rng.choice(60 * 50, 1200, replace=False), 50)
    frame = pl.DataFrame(
        {
            "Customer: ID": [f"c{n}" for n in users],
            "sku #": items,
            "clicked": rng.integers(0, 2, 1200),
            "stars": rng.integers(1, 6, 1200),
            "plays": rng.geometric(0.05, 1200) ** 2,
            "date": [f"2024-{1 + n % 12:02d}-01" for n in range(1200)],
        }
    )
    frame, path = pl.concat([frame, frame[:1]]), folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    else:
        frame.write_csv(path, separator="\t" if path.suffix == ".tsv" else ",")
    return path


@pytest.mark.parametrize(
    ("field", "name", "label", "kind"),
    [
        ("shop", "my data/purchases.csv", "none", "ranking"),
        ("video", "watched.parquet", "clicked", "click"),
        ("news", "news.tsv", "clicked", "click"),
        ("music", "plays.csv", "plays", "count"),
        ("social", "ratings.csv", "stars", "rating"),
    ],
)
def test_a_recipe_runs_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str, name: str, label: str, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    table = write_table(tmp_path, name).relative_to(tmp_path)
    result = api.write_first_recipe(field, table, Path("configs/it.yaml"), {"label": label})
    assert result["kind"] == kind
    assert {guess["what"]: guess["guess"] for guess in result["guesses"]} == {
        "what to predict": kind, "user": "Customer: ID", "item": "sku #", "label": label, "time": "date",
    }  # fmt: skip
    config = api.load_config("configs/it.yaml", SHORT)
    assert config.task.kind == kind
    assert config.data.split.method == ("temporal" if field in ("shop", "video", "news") else "leave_last_out")
    assert api.prepare(config)["repeated"]["interacts"]["rows"] == 1
    assert api.train(config)["epochs"] == 1


@pytest.mark.parametrize("field", FIELDS)
def test_a_table_without_labels_and_times_is_a_ranking_in_every_field(tmp_path: Path, field: str) -> None:
    (tmp_path / "pairs.txt").write_text("1 2 3\n2 3 4\n")
    api.write_first_recipe(field, tmp_path / "pairs.txt", tmp_path / "it.yaml")
    config = api.load_config(tmp_path / "it.yaml")
    assert (config.task.kind, config.data.split.method, config.data.skip_bad_rows) == ("ranking", "random", False)


def test_nothing_is_overwritten_unless_forced(tmp_path: Path) -> None:
    table, output = write_table(tmp_path, "t.csv"), tmp_path / "it.yaml"
    output.write_text("mine")
    with pytest.raises(ConfigError, match=r"it\.yaml: there is a file already; .*--force"):
        api.write_first_recipe("shop", table, output)
    assert output.read_text() == "mine"
    api.write_first_recipe("shop", table, output, force=True)
    assert api.load_config(output).name == "it"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("196,242\n1,2\n", "expected the names of the columns"),
        ("user_id,item_id\n", "the file has no rows"),
        ("", "the file is empty"),
        ("user_id\n1\n2\n", "no column can be the item"),
        ("user_id,user_id\n1,2\n", "two columns are named 'user_id'"),
    ],
)
def test_a_table_that_is_none_of_interactions_is_an_error(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(DataError, match=words):
        api.write_first_recipe("shop", tmp_path / "t.csv", tmp_path / "it.yaml")
    assert not (tmp_path / "it.yaml").exists()
    with pytest.raises(ConfigError, match="--for bank: expected one of shop, social"):
        api.write_first_recipe("bank", tmp_path / "t.csv")


def test_hostile_names_stay_names(tmp_path: Path) -> None:
    user, item = "user\n!!python/object: x", 'item": {*a} \x1b[2J'
    frame = pl.DataFrame({user: ["a", "b"], item: ["x", "y"]})
    frame.write_parquet(tmp_path / "t.parquet")
    api.write_first_recipe("shop", tmp_path / "t.parquet", tmp_path / "it.yaml")
    columns = api.load_config(tmp_path / "it.yaml").data.columns
    assert (columns.user_id, columns.item_id) == (user, item)


def test_names_of_recipes() -> None:
    found = [recipe_name(Path("/data", name)) for name in ("my shop/train.csv", "a b/My sales (1).csv", "x/ä.csv")]
    assert found == ["my-shop", "My-sales-1", "first"]


def test_batches_of_small_tables_are_small() -> None:
    assert [batch_size(rows) for rows in (2, 10_000, 100_000, 250_000, 2_000_000)] == [256, 256, 512, 2048, 4096]


def test_the_command_says_what_it_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path, "plays.csv")
    arguments = ["init", "--for", "music", "plays.csv", "--label", "plays"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert all(word in shown.output for word in ("its name says customer", "you said so", "configs/plays.yaml"))
    CliRunner().invoke(app, [*arguments, "--force", "--json"])
    result: dict[str, Any] = json.loads(capfd.readouterr().out)
    assert (result["recipe"], result["kind"]) == ("configs/plays.yaml", "count")
