"""No clear ID in anything that a run leaves, and the way back with the key alone."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from cryptography.exceptions import InvalidTag
from recipes import recipe

from dist_gat.api import evaluate, prepare, recommend, report, rotate_key, train
from dist_gat.base.errors import ConfigError, DataError, StorageError
from dist_gat.data.pseudonyms import Pseudonyms
from dist_gat.graph import prepare as prepare_module
from dist_gat.workflows import rotate_key as rotation

TITLES = {"item_titles": {"path": "items.csv", "id_column": "item_id", "columns": ["title"]}}
USERS, ITEMS = 30, 20


def user_name(user: int) -> str:
    return f"person-{user * 7919 % 1000:04}"


def item_name(item: int) -> str:
    return f"article-{item * 104729 % 1000:04}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pseudonyms")
    (folder / "raw").mkdir()
    pairs = [(user_name(u), item_name((u * 3 + i * i) % ITEMS)) for u in range(USERS) for i in range(8)]
    frame = pl.DataFrame(sorted(set(pairs)), schema=["user_id", "item_id"], orient="row")
    frame.write_csv(folder / "raw" / "interactions.csv")
    titles = pl.DataFrame({"item_id": [item_name(i) for i in range(ITEMS)], "title": [f"T{i}" for i in range(ITEMS)]})
    titles.write_csv(folder / "raw" / "items.csv")
    return folder


@pytest.fixture(scope="module")
def config(folder: Path) -> Any:
    config = recipe(folder, data=TITLES)
    told: list[str] = []
    prepare(config, told.append, pseudonymize=folder / "key")
    assert any("a new key is in" in message for message in told)
    assert not any(is_named(message.encode()) for message in told)
    train(config)
    evaluate(config)
    report(config.run_folder)
    return config


def is_named(content: bytes) -> bool:
    names = [*(user_name(user) for user in range(USERS)), *(item_name(item) for item in range(ITEMS))]
    return any(name.encode() in content for name in names)


def contents(path: Path) -> bytes:
    """Of a file; of a table, whose columns are compressed, what it says."""
    if path.suffix == ".parquet":
        return str(pl.read_parquet(path).to_dict(as_series=False)).encode()
    return path.read_bytes()


def test_no_clear_id_is_in_any_file(folder: Path, config: Any) -> None:
    assert is_named((folder / "raw" / "interactions.csv").read_bytes())
    written = [path for name in ("run", "prepared") for path in (folder / name).rglob("*") if path.is_file()]
    assert len(written) > 30
    assert [path for path in written if is_named(contents(path))] == []
    assert sorted(path.name for path in folder.iterdir()) == ["key", "prepared", "raw", "run"]
    assert stat.S_IMODE((folder / "key").stat().st_mode) == 0o600


def test_the_key_leads_back(folder: Path, config: Any, tmp_path: Path) -> None:
    key = folder / "key"
    named = recommend(config.run_folder, users=[user_name(3)], k=5, key=key)
    assert named["user_id"].to_list() == [user_name(3)] * 5
    titles = {item_name(item): f"T{item}" for item in range(ITEMS)}
    assert [titles[item] for item in named["item_id"]] == named["title"].to_list()
    hidden = Pseudonyms(bytes.fromhex(key.read_text())).pseudonym("user", user_name(3))
    plain = recommend(config.run_folder, users=[hidden], k=5)
    assert plain["title"].to_list() == named["title"].to_list()
    assert not is_named(str(plain.to_dicts()).encode())
    with pytest.raises(DataError) as unknown:
        recommend(config.run_folder, users=[user_name(3)])
    # of what the caller said, and nobody else
    assert not is_named(str(unknown.value).replace(user_name(3), "").encode())
    prepare(config.model_copy(update={"data": config.data.model_copy(update={"prepared": str(tmp_path / "other")})}),
            pseudonymize=tmp_path / "other-key")  # fmt: skip
    with pytest.raises(ConfigError, match="its IDs are of another key"):
        recommend(config.run_folder, users=[user_name(3)], key=tmp_path / "other-key")
    with pytest.raises(StorageError, match="expected a secret"):
        recommend(config.run_folder, users=[user_name(3)], key=tmp_path / "no-key")


def test_errors_and_warnings_quote_nobody(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "raw" / "interactions.csv").read_text() + f"{user_name(1)},\nnull,{item_name(1)}\nx\n"
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "interactions.csv").write_text(lines)
    bad = recipe(tmp_path)
    with pytest.raises(DataError, match="--pseudonymize withholds it") as withheld:
        prepare(bad, pseudonymize=folder / "key")
    assert not is_named(str(withheld.value).encode())
    assert withheld.value.__suppress_context__


def test_an_error_that_nobody_foresaw_quotes_nobody(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_dataset(*_: Any) -> None:
        raise RuntimeError(f"Conversion Error: {user_name(1)}")

    monkeypatch.setattr(prepare_module, "load_dataset", load_dataset)
    config = recipe(folder, data={"prepared": str(tmp_path / "prepared")})
    with pytest.raises(DataError, match="--pseudonymize withholds it") as withheld:
        prepare(config, pseudonymize=folder / "key")
    assert withheld.value.__suppress_context__
    with pytest.raises(RuntimeError, match=user_name(1)):
        prepare(config)


def test_pseudonyms_are_not_replaced_by_clear_ids(config: Any) -> None:
    with pytest.raises(ConfigError, match="has pseudonyms, and would be replaced by clear IDs"):
        prepare(config)


def test_sealed_ids_open_with_their_key_alone() -> None:
    one, other = Pseudonyms(bytes(32)), Pseudonyms(bytes([1] * 32))
    for text in ("", "a", "Zoë", "x" * 100, "ends with \x80"):
        assert one.unseal("user", one.seal("user", text)) == text
        assert len(one.seal("user", text)) % 32 == 16
    assert one.pseudonym("user", 5) == one.pseudonym("user", "5") != one.pseudonym("item", 5)
    assert one.pseudonym("user", 5) != other.pseudonym("user", 5)
    with pytest.raises(InvalidTag):
        other.unseal("user", one.seal("user", "a"))


def test_another_key_gives_other_pseudonyms(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = recipe(tmp_path, data={"path": str(folder / "raw"), **TITLES}, train={"num_epochs": 1})
    old, new = tmp_path / "old", tmp_path / "new"
    prepare(config, pseudonymize=old)
    train(config)
    before = recommend(config.run_folder, users=[user_name(3)], k=5, key=old)
    names = pl.read_parquet(tmp_path / "run" / "model" / "ids" / "user.parquet")["external_id"]
    renew, renewed = rotation.renew, []

    def stopped_at_the_model(target: Path, *rest: Any) -> None:
        if renewed:
            raise RuntimeError("planted")
        renewed.append(renew(target, *rest))

    monkeypatch.setattr(rotation, "renew", stopped_at_the_model)
    with pytest.raises(RuntimeError, match="planted"):
        rotate_key(config.run_folder, old, new)
    monkeypatch.undo()
    # the data has the new key, the model the old one, and the same command goes on
    assert rotate_key(config.run_folder, old, new)["nodes"] == USERS + ITEMS
    assert recommend(config.run_folder, users=[user_name(3)], k=5, key=new).equals(before)
    with pytest.raises(ConfigError, match="its IDs are of another key"):
        recommend(config.run_folder, users=[user_name(3)], key=old)
    renamed = pl.read_parquet(tmp_path / "run" / "model" / "ids" / "user.parquet")["external_id"]
    assert not {*names} & {*renamed}
    assert renamed.is_sorted()
    assert evaluate(config).keys() >= {"test", "valid"}
