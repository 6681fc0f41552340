"""Tables beside the interactions: input features and titles, keyed by external ID."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from dist_gat.base.errors import DataError
from dist_gat.config.sections import DataConfig, FeatureConfig
from dist_gat.data.bad_rows import NUM_EXAMPLES, BadRows, refuse_bad_rows, shown
from dist_gat.data.source import ROW, SUFFIXES, RawTable, missing_column, open_source, read_columns, read_header
from dist_gat.data.table import bad_ids, bad_values, checked_ids, refuse_line_breaks
from dist_gat.data.values import parse_numbers
from dist_gat.data.vocabulary import encode


def read_features(
    config: DataConfig, feature: FeatureConfig, setting: str, vocabulary: pl.Series
) -> tuple[np.ndarray, int]:
    """Numeric columns by index, float32 [len(vocabulary), len(feature.columns)], and the bad rows dropped.

    IDs that the table lacks get zeros; IDs that the vocabulary lacks are ignored. `setting` is the key of
    `feature`, for messages. Raises `DataError`, for example for a value that is not a finite number.
    """
    raw = _read_raw(config, feature, setting)
    for name in feature.columns:
        refuse_line_breaks(raw.source, raw.frame, name)
    numbers = [parse_numbers(raw.frame[name]) for name in feature.columns]
    bad = [
        bad_values(raw.frame, name, column.is_null(), f"{name} is not a finite number", "a number in every row")
        for name, column in zip(feature.columns, numbers, strict=True)
    ]
    table, dropped = _keyed(raw, feature, config, numbers, bad)
    index = _index(raw, table, feature, vocabulary)
    features = np.zeros((len(vocabulary), len(feature.columns)), dtype=np.float32)
    features[index[index >= 0]] = table.select(feature.columns).to_numpy()[index >= 0]
    return features, dropped


def read_titles(
    config: DataConfig, feature: FeatureConfig, setting: str, vocabulary: pl.Series
) -> tuple[pl.Series, int]:
    """One text column by index, String [len(vocabulary)], null where unknown, and the bad rows dropped."""
    if len(feature.columns) != 1:
        raise DataError(f"{setting}.columns={feature.columns}: expected one column, the title; remove the others")
    (name,) = feature.columns
    raw = _read_raw(config, feature, setting)
    title = raw.frame[name].cast(pl.String)
    title = title.set((title == "").fill_null(True), None)
    table, dropped = _keyed(raw, feature, config, [title], [])
    index = _index(raw, table, feature, vocabulary)
    known = pl.DataFrame({"index": index, "title": table[name]})
    titles = pl.DataFrame({"index": np.arange(len(vocabulary))}).join(
        known, on="index", how="left", maintain_order="left"
    )
    return titles["title"], dropped


def _read_raw(config: DataConfig, feature: FeatureConfig, setting: str) -> RawTable:
    """The ID column and the feature columns, under their own names."""
    path = Path(config.path, feature.path)
    # data.format is for the interactions, so the suffix counts first; LightGCN's format holds interactions alone
    by_suffix = SUFFIXES.get(path.suffix, "lightgcn") != "lightgcn"
    other = config.format if config.format not in ("auto", "lightgcn") else "csv"
    source = open_source(path, "auto" if by_suffix else other, None)
    if source.format == "csv" and config.separator is not None:
        source = open_source(path, "csv", config.separator)
    header = read_header(source)
    names = [feature.id_column, *feature.columns]
    for name in names:
        if name not in header:
            key = "id_column" if name == feature.id_column else "columns"
            raise missing_column(source, header, name, f"{setting}.{key}")
    raw = read_columns(source, {name: header[name] for name in names})
    if raw.num_rows == 0:
        raise DataError(f"{path}: the table of {setting} has no rows; expected one for each ID, or unset {setting}")
    return raw


def _keyed(
    raw: RawTable, feature: FeatureConfig, config: DataConfig, columns: list[pl.Series], bad: list[BadRows]
) -> tuple[pl.DataFrame, int]:
    """The usable rows, one for each ID, and the number of others, which are an error unless they may be skipped."""
    key = feature.id_column
    refuse_line_breaks(raw.source, raw.frame, key)
    ids = checked_ids(raw.source, raw.frame[key])
    again = ids.is_not_null() & ~ids.is_first_distinct()
    bad = [
        *bad,
        bad_ids(raw.frame, key, ids),
        bad_values(raw.frame, key, again, f"{key} again", "each ID once"),
    ]
    if raw.malformed is not None:
        bad.append(raw.malformed)
    if not config.skip_bad_rows:
        refuse_bad_rows(raw.source.path, raw.source.counting, bad)
    unusable = np.concatenate([fault.rows for fault in bad])
    table = pl.DataFrame([raw.frame[ROW], ids, *columns]).filter(~np.isin(raw.frame[ROW], unusable))
    return table, raw.num_rows - len(table)


def _index(raw: RawTable, table: pl.DataFrame, feature: FeatureConfig, vocabulary: pl.Series) -> np.ndarray:
    """Index of each row in the vocabulary, -1 where it's unknown: int64 [rows].

    IDs are compared as text, since an integer ID of one file can be text in another. No match at all is an error.
    """
    ids, texts = table[feature.id_column].cast(pl.String), vocabulary.cast(pl.String)
    index = encode(ids, texts)
    if not (index >= 0).any():
        found, expected = (", ".join(map(shown, some.head(NUM_EXAMPLES))) for some in (ids, texts))
        raise DataError(
            f"{raw.source.path}: column '{feature.id_column}' has no ID of the interactions; it has {found}, "
            f"they have {expected}; "
            "name the right column, or write the same IDs in both"
        )
    return index
