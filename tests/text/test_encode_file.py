"""`dist-gat encode`: tables of texts and folders of images to files of vectors, with random models."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tiny_models import SIZE, save_bert, save_clip
from typer.testing import CliRunner

from dist_gat.base.errors import ConfigError, DataError
from dist_gat.cli.main import app
from dist_gat.config.text_section import TextEncoderConfig
from dist_gat.text.encode import encode_texts
from dist_gat.text.image_encoder import encode_images
from dist_gat.workflows import encode_file as workflow
from dist_gat.workflows.encode_file import encode_file

pytest.importorskip("sentence_transformers")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "items.csv"
    path.write_text('item_id,title\n7,red cat\n8,\n9,"blue, old fish"\n007,red cat\n')
    return path


def test_a_table_of_texts_to_an_array(table: Path, bert: Path, tmp_path: Path) -> None:
    done = encode_file(table, "title", TextEncoderConfig(encoder=str(bert)), tmp_path / "v.npy", tmp_path / "cache")
    vectors = np.load(tmp_path / "v.npy")
    assert (done["rows"], done["without_vector"], done["size"]) == (4, 1, SIZE)
    assert vectors.dtype == np.float32
    assert np.isnan(vectors[1]).all()
    assert np.array_equal(vectors[0], vectors[3])
    texts = pl.Series("title", ["red cat", "blue, old fish"])
    assert np.array_equal(vectors[[0, 2]], encode_texts(texts, TextEncoderConfig(encoder=str(bert)), tmp_path / "own"))


def test_a_table_of_texts_to_a_table(
    table: Path, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(workflow, "WRITE_ROWS", 3)
    encode_file(table, "title", TextEncoderConfig(encoder=str(bert)), tmp_path / "v.parquet", tmp_path / "cache")
    found = pl.read_parquet(tmp_path / "v.parquet")
    assert found.columns == ["item_id", "title", "vector"]
    assert found["item_id"].to_list() == ["7", "8", "9", "007"]
    assert found["vector"].is_null().to_list() == [False, True, False, False]
    assert found["vector"].dtype == pl.Array(pl.Float32, SIZE)
    with pytest.raises(DataError, match="has a column 'vector' already"):
        encode_file(
            tmp_path / "v.parquet", "title", TextEncoderConfig(encoder=str(bert)), tmp_path / "w.parquet", tmp_path
        )


def test_the_command_line(table: Path, bert: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["encode", table, "--column", "title", "--encoder", bert, "--output", tmp_path / "v.npy"]
    arguments = [str(argument) for argument in [*arguments, "--cache", tmp_path / "cache", "--json"]]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    done = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert (done["rows"], done["without_vector"], done["stopped"]) == (4, 1, False)
    assert np.load(tmp_path / "v.npy").shape == (4, SIZE)


def test_a_signal_stops_the_command_and_leaves_no_file(
    table: Path, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def stop_at_once(*arguments: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("dist_gat.text.vector_cache.VectorCache.add", stop_at_once)
    arguments = ["encode", table, "--column", "title", "--encoder", bert, "--output", tmp_path / "v.npy"]
    result = CliRunner().invoke(app, [str(argument) for argument in [*arguments, "--cache", tmp_path / "cache"]])
    assert result.exit_code == 143
    assert "the same command goes on" in capfd.readouterr().out + result.output
    assert not (tmp_path / "v.npy").exists()


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"column": "name"}, DataError, "name"),
        ({"column": None}, ConfigError, "--column is missing"),
        ({"output": "v.txt"}, ConfigError, "ends in .npy or .parquet"),
        ({"output": "nowhere/v.npy"}, ConfigError, "there is no folder"),
        ({"source": "nowhere.csv"}, DataError, "nowhere.csv"),
    ],
)
def test_wrong_arguments(
    table: Path, bert: Path, tmp_path: Path, changed: dict, error: type[Exception], message: str
) -> None:
    given = {"source": "items.csv", "column": "title", "output": "v.npy", **changed}
    with pytest.raises(error, match=message):
        encode_file(
            tmp_path / given["source"], given["column"], TextEncoderConfig(encoder=str(bert)),
            tmp_path / given["output"], tmp_path / "cache",
        )  # fmt: skip
    assert not (tmp_path / "v.npy").exists()


def save_images(folder: Path, count: int) -> list[Path]:
    from PIL import Image

    folder.mkdir()
    draw = np.random.default_rng(0)
    paths = [folder / f"{100 + number}.png" for number in range(count)]
    for path in paths:
        Image.fromarray(draw.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(path)
    return paths


def test_a_folder_of_images(clip: Path, tmp_path: Path) -> None:
    from PIL import Image
    from transformers import CLIPImageProcessor, CLIPModel

    paths = save_images(tmp_path / "images", 40)
    (tmp_path / "images" / "notes.txt").write_text("no image")
    config = TextEncoderConfig(encoder=str(clip), device="cpu")
    done = encode_file(tmp_path / "images", None, config, tmp_path / "v.parquet", tmp_path / "cache", images=True)
    found = pl.read_parquet(tmp_path / "v.parquet")
    assert (done["rows"], done["size"]) == (40, 6)
    assert found["id"].to_list() == [path.stem for path in paths]
    pixels = CLIPImageProcessor.from_pretrained(clip)(images=[Image.open(path) for path in paths], return_tensors="pt")
    theirs = CLIPModel.from_pretrained(clip).get_image_features(**pixels).pooler_output.detach().numpy()
    assert np.abs(found["vector"].to_numpy() - theirs).max() < 1e-5


def test_a_table_of_images(clip: Path, tmp_path: Path) -> None:
    paths = save_images(tmp_path / "images", 2)
    files = pl.Series("file", [paths[1].name, None, paths[0].name, paths[1].name])
    vectors = encode_images(files, tmp_path / "images", str(clip), tmp_path / "cache", "cpu")
    assert np.isnan(vectors[1]).all()
    assert np.array_equal(vectors[0], vectors[3])
    assert np.abs(vectors[0] - vectors[2]).max() > 0
    with pytest.raises(DataError, match=r"no.png: not found, like 1 of 1 images"):
        encode_images(pl.Series(["no.png"]), tmp_path / "images", str(clip), tmp_path / "cache", "cpu")
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken.png: not an image that can be read"):
        encode_images(pl.Series(["broken.png"]), tmp_path / "images", str(clip), tmp_path / "cache", "cpu")


def test_a_text_encoder_has_no_tower_for_images(bert: Path, tmp_path: Path) -> None:
    save_images(tmp_path / "images", 1)
    with pytest.raises(ConfigError, match="encoder of images|no tower for images"):
        encode_images(pl.Series(["100.png"]), tmp_path / "images", str(bert), tmp_path / "cache", "cpu")
