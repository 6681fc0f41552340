"""Predictions of given pairs: of a data frame, and of files, batch by batch over processes; whole files or none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from processes import becomes_true
from recipes import prepare_and_train, recipe

from dist_gat import api
from dist_gat.base.errors import ConfigError, DataError, DistGatError, StorageError
from dist_gat.data.synthetic import write_synthetic
from dist_gat.serve import pairs_file, predict
from dist_gat.serve.id_index import FEW, IdIndex
from dist_gat.serve.saved_model import open_model

NUM_USERS, NUM_ITEMS = 60, 40


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a model of clicks with IDs of text, in four parts."""
    folder = tmp_path_factory.mktemp("clicks")
    write_synthetic(folder / "raw", NUM_USERS, NUM_ITEMS, 2, 12, 0.1, seed=1)
    table = pl.read_csv(folder / "raw" / "interactions.csv")
    label = pl.Series("weight", np.random.default_rng(0).integers(0, 2, len(table)))
    table.select("user_id", "item_id", label).write_csv(folder / "raw" / "interactions.csv")
    config = recipe(folder, task={"kind": "click"}, parts={"num_parts": 4}, train={"metric": "auc", "num_epochs": 1})
    prepare_and_train(config)
    return config.run_folder


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files have several batches and chunks too."""
    monkeypatch.setattr(pairs_file, "BATCH", 1000)
    monkeypatch.setattr(pairs_file, "BLOCK_BYTES", 10_000)
    monkeypatch.setattr(predict, "CHUNK", 128)


def some_pairs(count: int = 5000) -> pl.DataFrame:
    rng = np.random.default_rng(3)
    return pl.DataFrame(
        {
            "note": [f'a "{n}", b' if n % 7 else "" for n in range(count)],
            "item_id": [f"i{n}" for n in rng.integers(0, NUM_ITEMS, count)],
            "user_id": [f"u{n}" for n in rng.integers(0, NUM_USERS, count)],
            "price": rng.random(count),
        }
    )


def test_a_prediction_is_the_model_s_value_of_the_pair(model: Path) -> None:
    saved, pairs = open_model(model / "model"), some_pairs(300)
    rows = np.concatenate([torch.cat(saved.ranking_rows(part), dim=1).numpy() for part in range(4)])
    node = {kind: dict(saved.ids(kind).select("external_id", "node_id").rows()) for kind in saved.ranges.node_types}
    product = np.array([rows[node["user"][u]] @ rows[node["item"][i]] for u, i in pairs["user_id", "item_id"].rows()])
    pair = saved.manifest["pairs"]["prediction"]
    value = product / pair["temperature"] + pair["constant"]
    expected = 1 / (1 + np.exp(-value / pair["calibration"]["temperature"]))
    assert api.predict(model, pairs)["prediction"].to_numpy() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv"])
def test_files_have_the_rows_and_the_bits_of_the_data_frame(model: Path, tmp_path: Path, suffix: str) -> None:
    pairs = some_pairs()
    source, target = tmp_path / f"pairs{suffix}", tmp_path / f"out{suffix}"
    separator = "\t" if suffix == ".tsv" else ","
    pairs.write_parquet(source) if suffix == ".parquet" else pairs.write_csv(source, separator=separator)
    done = api.predict(model, source, output=target, workers=1)
    assert (done["rows"], done["unknown"], done["workers"]) == (5000, 0, 1)
    read = pl.read_parquet if suffix == ".parquet" else lambda path: pl.read_csv(path, separator=separator)
    found, expected = read(target), api.predict(model, pairs)
    assert found["prediction"].to_list() == expected["prediction"].to_list()
    assert found.drop("prediction").equals(read(source))
    assert api.predict(model, source)["prediction"].to_list() == expected["prediction"].to_list()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"out{suffix}", f"pairs{suffix}"]


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_writes_the_same_file(model: Path, tmp_path: Path, workers: int) -> None:
    some_pairs().write_parquet(tmp_path / "pairs.parquet")
    for count in (1, workers):
        api.predict(model, tmp_path / "pairs.parquet", output=tmp_path / f"{count}.parquet", workers=count)
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / f"{workers}.parquet").read_bytes()


def test_one_pair_has_the_bits_that_it_has_among_many(model: Path) -> None:
    pairs = some_pairs(700)
    whole = api.predict(model, pairs)["prediction"].to_list()
    assert [api.predict(model, pairs[at])["prediction"].item() for at in range(0, 700, 70)] == whole[::70]


def test_text_stays_as_it_is_written(model: Path, tmp_path: Path) -> None:
    lines = ["user_id,code,item_id,text", "u1,007,i1,1.50", 'u2,,i2,"a\nb"', "", 'u3,"1,5",i3,x']
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    api.predict(model, tmp_path / "pairs.csv", output=tmp_path / "out.csv")
    written = (tmp_path / "out.csv").read_text()
    assert written.startswith("user_id,code,item_id,text,prediction\nu1,007,i1,1.50,0.")
    assert '\nu2,,i2,"a\nb",0.' in written
    assert '\nu3,"1,5",i3,x,0.' in written
    api.predict(model, tmp_path / "pairs.csv", output=tmp_path / "out.parquet")
    frame = pl.read_parquet(tmp_path / "out.parquet")
    assert frame["code"].to_list() == ["007", None, "1,5"]


@pytest.mark.parametrize("name", ["empty.parquet", "empty.csv", "headless.csv"])
def test_a_table_without_rows_gives_one_with_the_column(model: Path, tmp_path: Path, name: str) -> None:
    empty, source = pl.DataFrame(schema={"user_id": pl.String, "item_id": pl.String}), tmp_path / name
    if name == "headless.csv":
        source.write_text("user_id,item_id")
    else:
        empty.write_parquet(source) if name == "empty.parquet" else empty.write_csv(source)
    target = tmp_path / f"out{source.suffix}"
    assert api.predict(model, source, output=target)["rows"] == 0
    found = pl.read_parquet(target) if source.suffix == ".parquet" else pl.read_csv(target)
    assert (found.columns, len(found)) == (["user_id", "item_id", "prediction"], 0)
    assert api.predict(model, empty).columns == found.columns
    assert api.predict(model, source).columns == found.columns


@pytest.mark.parametrize("workers", [1, 2])
def test_somebody_unknown_is_an_error_with_row_and_remedy_or_a_null(model: Path, tmp_path: Path, workers: int) -> None:
    ids = pl.Series(some_pairs()["user_id"]).scatter([3210, 4000], ["nobody", None])
    pairs = some_pairs().with_columns(ids)
    pairs.write_csv(tmp_path / "pairs.csv")
    target = tmp_path / "out.csv"
    target.write_text("precious")
    # line 1 is the header
    with pytest.raises(
        DataError, match=r"pairs\.csv: 1 of the rows .* a user .* 'nobody' in row 3212; .*--unknown null"
    ):
        api.predict(model, tmp_path / "pairs.csv", output=target, workers=workers)
    assert target.read_text() == "precious"
    with pytest.raises(DataError, match=r"2 of the rows 1 to 5000 .* 'nobody' in row 3211, None in row 4001"):
        api.predict(model, pairs)
    done = api.predict(model, tmp_path / "pairs.csv", output=target, workers=workers, unknown="null")
    assert done["unknown"] == 2
    found = pl.read_csv(target)["prediction"]
    assert found.is_null().arg_true().to_list() == [3210, 4000]
    assert found.to_list() == api.predict(model, pairs, unknown="null")["prediction"].to_list()


def test_numbers_find_ids_that_are_numbers(tmp_path: Path) -> None:
    index = IdIndex("user", pl.Series([2, 5, 9]), np.array([7, 8, 3]))
    assert index.find(pl.Series("user_id", ["9", "5", "x", None, "10", "1"]), "").tolist() == [3, 8, -1, -1, -1, -1]
    assert index.find(pl.Series("user_id", [2.0, 2.5, float("nan")]), "").tolist() == [7, -1, -1]
    assert index.find(pl.Series("user_id", [None, None]), "").tolist() == [-1, -1]
    with pytest.raises(DataError, match="user_id has the type Boolean; expected IDs"):
        index.find(pl.Series("user_id", [True]), "pairs.parquet")


@pytest.mark.parametrize("dtype", [pl.Int8, pl.UInt16, pl.Int64, pl.UInt64])
def test_few_texts_find_what_many_find(dtype: pl.DataType) -> None:
    ids = pl.Series([2, 5, 9, 127], dtype=dtype)
    index = IdIndex("user", ids, np.array([7, 8, 3, 4]))
    texts = [
        "9", "5", "127", "10", "02", " 2", "2 ", "+2", "-2", "2.0", "2_0", "٢", "", "x", "9" * 19, str(2**64 + 2),
        str(2**32 + 2), "9" * 5000,
    ]  # fmt: skip
    few = index.find_texts(texts)
    assert few.tolist() == [3, 8, 4] + [-1] * (len(texts) - 3)
    many = index.find_texts(texts * FEW)
    assert many.tolist() == few.tolist() * FEW
    missing = pl.Series(["9", None])
    assert [index.find_texts(some).tolist() for some in (missing, pl.concat([missing] * FEW))] == [
        [3, -1],
        [3, -1] * FEW,
    ]
    assert IdIndex("user", ids.clear(), np.zeros(0, np.int64)).find_texts(texts).tolist() == [-1] * len(texts)


BAD_FILES = {
    "missing.csv": ("user_id,item\nu1,i1\n", "no column item_id; found 'user_id', 'item'"),
    "taken.csv": ("user_id,item_id,prediction\nu1,i1,1\n", "a column prediction already"),
    "twice.csv": ("user_id,item_id,x,x\nu1,i1,1,1\n", "several columns are named x"),
    "ragged.csv": ("user_id,item_id\nu1,i1\nu2,i1,9\n", "Row #3: Expected 2 columns, got 3"),
    "bytes.csv": (b"user_id,item_id\nu1,i1\n\xff,i1\n", "can't decode byte 0xff"),
    "nothing.csv": ("", "no column user_id and item_id; found"),
    "text.parquet": ("user_id,item_id\nu1,i1\n", "can't be read as parquet"),
    "pairs.xlsx": ("", "suffix '.xlsx' tells no format; expected one of .parquet"),
    "nowhere.csv": (None, "no such file"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_an_error_and_what_stood_there_stays(model: Path, tmp_path: Path, name: str) -> None:
    content, words = BAD_FILES[name]
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    target = tmp_path / "out.csv"
    target.write_text("precious")
    with pytest.raises(DistGatError) as caught:
        api.predict(model, tmp_path / name, output=target)
    assert str(tmp_path / name) in str(caught.value)
    assert words in str(caught.value)
    assert target.read_text() == "precious"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_parquet_file_that_is_cut_off_or_damaged_is_an_error(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "pairs.parquet"
    some_pairs().write_parquet(source)
    whole = source.read_bytes()
    for content in (whole[:-100], whole[:2000] + bytes(2000) + whole[4000:]):
        source.write_bytes(content)
        with pytest.raises(DataError, match="can't be read as parquet"):
            api.predict(model, source, output=tmp_path / "out.parquet")
        assert not (tmp_path / "out.parquet").exists()


def test_an_output_that_cannot_be_written_is_an_error(model: Path, tmp_path: Path) -> None:
    some_pairs(10).with_columns(pl.Series("list", [[1]] * 10)).write_parquet(tmp_path / "pairs.parquet")
    with pytest.raises(StorageError, match="nowhere/out.parquet: can't be written"):
        api.predict(model, tmp_path / "pairs.parquet", output=tmp_path / "nowhere" / "out.parquet")
    with pytest.raises(ConfigError, match="out.html: the suffix '.html'"):
        api.predict(model, tmp_path / "pairs.parquet", output=tmp_path / "out.html")
    with pytest.raises(DataError, match=r"out.csv: can't be csv: .*take \.parquet"):
        api.predict(model, tmp_path / "pairs.parquet", output=tmp_path / "out.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ConfigError, match="folder.csv: a folder is there"):
        api.predict(model, tmp_path / "pairs.parquet", output=tmp_path / "folder.csv")
    with pytest.raises(ConfigError, match="goes with a file of pairs"):
        api.predict(model, some_pairs(10), output=tmp_path / "out.csv")  # type: ignore[call-overload]


def test_a_file_may_be_replaced_by_its_predictions(model: Path, tmp_path: Path) -> None:
    some_pairs(2000).write_csv(tmp_path / "pairs.csv")
    expected = api.predict(model, tmp_path / "pairs.csv")
    api.predict(model, tmp_path / "pairs.csv", output=tmp_path / "pairs.csv")
    assert pl.read_csv(tmp_path / "pairs.csv").equals(expected)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_stops_it_and_leaves_nothing(model: Path, tmp_path: Path, workers: int) -> None:
    """It waits for more of a pipe when the signal comes, so this takes as long on a fast machine."""
    source, target = tmp_path / "pairs.csv", tmp_path / "out.csv"
    some_pairs(200_000).write_csv(source)
    code = (
        "import sys, time; from dist_gat.serve import pairs_file\n"
        "whole = pairs_file.PairsFile.batches\n"
        "def slowly(self):\n    for batch in whole(self):\n        time.sleep(0.1); yield batch\n"
        "pairs_file.PairsFile.batches, pairs_file.BLOCK_BYTES = slowly, 10_000\n"
        "from dist_gat.cli.main import main; main()"
    )
    arguments = ["predict", str(model), str(source), "--output", str(target), "--workers", str(workers)]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True)
    try:
        assert becomes_true(lambda: any(path.name.startswith(".out.csv.tmp") for path in tmp_path.iterdir()), 120)
        os.kill(process.pid, signal.SIGTERM if workers == 1 else signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.csv"]
