"""The tables of the quality lines: splits as files, and side tables of numbers, from the public files.

Each function writes train, valid and test, and side tables where there are some, to a folder of their own. fold: where
there are several, the others have one. All draws are of a fixed seed, so that a table is the same on every run.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl

NUM_FOLDS = 5
AGE_EDGES = (18, 25, 35, 45, 50, 56)  # the groups of MovieLens-1M
TEXT_COLUMNS = 128


def write_movielens(data: Path, folder: Path, fold: int) -> None:
    """MovieLens-100K from RecBole's files: fold `fold` of five is test, a tenth of the others is valid.

    Side tables have 0 or 1 for gender, occupation, group of age; genres and decade.
    """
    source = data / "ml-100k"
    table = _read_recbole(source / "ml-100k.inter").select("user_id", "item_id", "rating")
    place = np.random.default_rng(0).permutation(len(table))
    is_test = place % NUM_FOLDS == fold
    # the next fold's tenth would be the same in all folds, so it's drawn with the fold
    is_valid = ~is_test & (np.random.default_rng(fold + 1).random(len(table)) < 0.1)
    _write_splits(folder, table, is_valid, is_test)

    users = _read_recbole(source / "ml-100k.user").with_columns(pl.col("age").cast(pl.Int64))
    group = pl.Series("age", np.digitize(users["age"].to_numpy(), AGE_EDGES))
    _write_side(folder / "users.csv", users["user_id"], [group, users["gender"], users["occupation"]])
    items = _read_recbole(source / "ml-100k.item")
    decade = (items["release_year"].cast(pl.Int64, strict=False).fill_null(0) // 10).rename("decade")
    genres = items["class"].fill_null("").str.split(" ")
    _write_side(folder / "items.csv", items["item_id"], [decade], genres)


def write_tmall(data: Path, folder: Path, fold: int) -> None:
    """The files as they are."""
    for name in ("train", "valid", "test", "collect_cart"):
        shutil.copy(data / "tmall-behaviours" / f"{name}.csv", folder / f"{name}.csv")


def write_kuairec(data: Path, folder: Path, fold: int = 0) -> None:
    """KuaiRec with the split that it comes with."""
    for split in ("train", "valid", "test"):
        pl.read_csv(data / "kuairec" / f"{split}.csv").write_csv(folder / f"{split}.csv")


def write_news(data: Path, folder: Path, fold: int = 0) -> None:
    """News impressions with the given test file, whose items are all new. A tenth of the other items is valid: new too.

    Items have the leading directions of their titles' and entities' words.
    """
    write_news_pairs(data, folder)
    items = read_news_items(data)
    _write_numbers(folder / "items.csv", items["item_id"], text_directions(items["text"].to_list(), TEXT_COLUMNS))


def write_news_pairs(data: Path, folder: Path) -> None:
    """The three splits alone. A pair that was shown twice counts once, as clicked if it was once."""
    train, test = (
        pl.read_csv(data / "news-bing" / f"{split}.csv").group_by("user_id", "item_id").agg(pl.col("weight").max())
        for split in ("train", "test")
    )
    train, test = (table.sort("user_id", "item_id") for table in (train, test))
    train = train.join(test, on=["user_id", "item_id"], how="anti", maintain_order="left")
    chosen = np.random.default_rng(0).random(train["item_id"].max() + 1) < 0.1
    is_valid = chosen[train["item_id"].to_numpy()]
    warm = set(train.filter(~pl.Series(is_valid))["user_id"])
    table = pl.concat([train, test])
    is_test = np.arange(len(table)) >= len(train)
    is_valid = np.append(is_valid, np.zeros(len(test), bool)) & table["user_id"].is_in(list(warm)).to_numpy()
    _write_splits(folder, table, is_valid, is_test)


def read_news_items(data: Path) -> pl.DataFrame:
    """item_id and text: the title, and a word an entity."""
    items = pl.read_csv(data / "news-bing" / "items.csv").with_columns(pl.col("title", "entities").fill_null(""))
    entities = pl.col("entities").str.replace_all(r"(\d+):[^;|]*", "entity$1 ")
    return items.select("item_id", text=pl.col("title") + " " + entities)


def write_lastfm(data: Path, folder: Path, fold: int = 0) -> None:
    """Play counts of Last.fm, 80/10/10 at random. Artists have the leading directions of their tags."""
    table = pl.read_csv(
        data / "lastfm-hin" / "user_artist.dat", separator="\t", has_header=False,
        new_columns=["user_id", "item_id", "weight"],
    )  # fmt: skip
    draw = np.random.default_rng(0).random(len(table))
    _write_splits(folder, table, (draw >= 0.8) & (draw < 0.9), draw >= 0.9)
    tags = pl.read_csv(
        data / "lastfm-hin" / "artist_tag.dat", separator="\t", has_header=False, new_columns=["item_id", "tag"]
    )
    words = tags.group_by("item_id", maintain_order=True).agg(
        text=("tag" + pl.col("tag").cast(pl.String)).str.join(" ")
    )
    _write_numbers(folder / "items.csv", words["item_id"], text_directions(words["text"].to_list(), TEXT_COLUMNS))


def text_directions(texts: list[str], size: int) -> np.ndarray:
    """float64 [len(texts), size]: latent semantic analysis, the truncated SVD of TF-IDF.

    All directions have the same variance, and rows a length of about 1.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(sublinear_tf=True, min_df=2, stop_words="english").fit_transform(texts)
    rows = TruncatedSVD(size, random_state=0).fit_transform(words)
    return rows / (rows.std(axis=0) * np.sqrt(size))


def _read_recbole(path: Path) -> pl.DataFrame:
    table = pl.read_csv(path, separator="\t", infer_schema=False, quote_char=None)
    return table.rename({name: name.partition(":")[0] for name in table.columns})


def _write_splits(folder: Path, table: pl.DataFrame, is_valid: np.ndarray, is_test: np.ndarray) -> None:
    """Users that have no training row are left out of valid and test, as in a split of `prepare`."""
    train = table.filter(~(is_valid | is_test))
    train.write_csv(folder / "train.csv")
    for name, chosen in (("valid", is_valid), ("test", is_test)):
        table.filter(chosen).join(train, on="user_id", how="semi", maintain_order="left").write_csv(
            folder / f"{name}.csv"
        )


def _write_side(path: Path, ids: pl.Series, categories: list[pl.Series], words: pl.Series | None = None) -> None:
    """A column of 0 and 1 for each value of each category, and for each word of the lists."""
    columns = [column.to_frame().to_dummies() for column in categories]
    if words is not None:
        known = sorted(set(words.explode().drop_nulls()) - {""})
        columns.append(pl.DataFrame({name: words.list.contains(name).cast(pl.UInt8) for name in known}))
    rows = pl.concat(columns, how="horizontal").to_numpy().astype(np.float64)
    # rows of one length, so that a user or item with many categories weighs no more than one with few
    _write_numbers(path, ids, rows / np.sqrt((rows**2).sum(axis=1, keepdims=True)))


def _write_numbers(path: Path, ids: pl.Series, rows: np.ndarray) -> None:
    """A side table with the columns c0, c1, …"""
    columns = {f"c{at}": rows[:, at] for at in range(rows.shape[1])}
    pl.DataFrame({ids.name: ids, **columns}).write_csv(path)
