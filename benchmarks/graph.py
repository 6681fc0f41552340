"""The standard graph of the benchmarks: half users, half items, power-law degrees, both directions, seeded."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import torch

from dist_gat.config.data_sections import DataConfig, RelationConfig, SplitConfig
from dist_gat.config.node_sections import FeatureConfig
from dist_gat.config.sections import NegativesConfig, PartsConfig, SamplingConfig
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.graph.prepare import prepare_dataset
from dist_gat.sampling.dgl import dgl
from dist_gat.sampling.graph_store import GraphStore
from dist_gat.sampling.sampler import SeedBlockSampler
from dist_gat.tasks.ranking_seeds import ranking_source

USER_EXPONENT, ITEM_EXPONENT = 0.6, 0.8


def power_law_pairs(num_users: int, num_items: int, num_interactions: int, seed: int = 0) -> pl.DataFrame:
    """Distinct (user_id, item_id): the node of rank r is drawn in proportion to r ** -exponent."""
    rng = np.random.default_rng(seed)
    pairs = np.zeros(0, dtype=np.int64)
    while len(pairs) < num_interactions:
        count = int(1.2 * (num_interactions - len(pairs))) + 1000
        user, item = _draw(rng, num_users, USER_EXPONENT, count), _draw(rng, num_items, ITEM_EXPONENT, count)
        pairs = np.unique(np.concatenate([pairs, user * num_items + item]))
    pairs = rng.permutation(pairs)[:num_interactions]
    return pl.DataFrame({"user_id": pairs // num_items, "item_id": pairs % num_items})


def with_edge_columns(table: pl.DataFrame) -> pl.DataFrame:
    """The pairs with a weight of 1 to 5 and a time in one year, drawn for each."""
    rng = np.random.default_rng(2)
    return table.with_columns(
        weight=pl.Series(rng.integers(1, 6, len(table)).astype(np.float32)),
        timestamp=pl.Series(1_700_000_000 + rng.integers(0, 365 * 86_400, len(table))),
    )


def _draw(rng: np.random.Generator, size: int, exponent: float, count: int) -> np.ndarray:
    running = np.cumsum(np.arange(1, size + 1) ** -exponent)
    return np.searchsorted(running, rng.random(count) * running[-1])


def ranking_sampler(
    store: GraphStore, fanouts: list[int], batch_size: int, edge_columns: Sequence[str] = ()
) -> SeedBlockSampler:
    """The sampler of a step's seed edges, with the default negatives and without in-degrees."""
    relation = store.prepared.schema.relations[0]
    source = ranking_source(store, relation, NegativesConfig(), batch_size, 0)
    return SeedBlockSampler(store, SamplingConfig(fanouts=fanouts), source, 0, False, edge_columns)


@contextmanager
def prepared_graph(
    num_nodes: int,
    num_interactions: int,
    num_parts: int = 1,
    method: Literal["range", "hash"] = "range",
    columns: int = 0,
    relations: int = 1,
    has_edge_columns: bool = False,
) -> Iterator[PreparedGraph]:
    """The standard graph as `prepare` writes it, with every interaction in training, and `columns` feature columns.

    relations: how many share the interactions, each with as many. has_edge_columns: edges have weights and times.
    `range` puts the most popular users and items into the first part, `hash` spreads them.
    """
    folder = Path(tempfile.mkdtemp(prefix="dist-gat-benchmark-"))
    try:
        table = power_law_pairs(num_nodes // 2, num_nodes // 2, num_interactions)
        files = [f"{number}.parquet" for number in range(relations)]
        edges = with_edge_columns(table) if has_edge_columns else table
        for number, file in enumerate(files):
            edges[number::relations].write_parquet(folder / file)
        data = DataConfig(
            path=str(folder),
            interactions=files[0],
            relations={f"other_{number}": RelationConfig(table=files[number]) for number in range(1, relations)},
            split=SplitConfig(method="random", valid_ratio=0.0, test_ratio=0.0),
            prepared=str(folder / "prepared"),
            user_features=_features(folder, table, "user_id", columns) if columns else None,
            item_features=_features(folder, table, "item_id", columns) if columns else None,
        )
        prepare_dataset("benchmark", data, PartsConfig(num_parts=num_parts, method=method), seed=0)
        yield open_prepared(folder / "prepared")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def dgl_graph(prepared: PreparedGraph) -> dgl.DGLGraph:
    """The training graph of a data set of one part, as DGL has it."""
    part = prepared.parts[0]
    csc = (torch.from_numpy(np.array(part.indptr)), torch.from_numpy(np.array(part.indices, dtype=np.int64)), [])
    return dgl.graph(("csc", csc))


@contextmanager
def hashed_graph(num_nodes: int, num_interactions: int) -> Iterator[tuple[PreparedGraph, str]]:
    """The standard graph in 4 hashed parts of about equal size, and a folder for runs on it."""
    with (
        tempfile.TemporaryDirectory(prefix="dist-gat-benchmark-") as run,
        prepared_graph(num_nodes, num_interactions, 4, "hash") as prepared,
    ):
        yield prepared, run


def _features(folder: Path, table: pl.DataFrame, id_column: str, columns: int) -> FeatureConfig:
    """Standard normal numbers for every node of a type, as a file."""
    ids = table[id_column].unique(maintain_order=True)
    values = np.random.default_rng(0).standard_normal((len(ids), columns), dtype=np.float32)
    names = [f"x{i}" for i in range(columns)]
    pl.DataFrame({id_column: ids}).hstack(pl.DataFrame(values, schema=names)).write_parquet(
        folder / f"{id_column}.parquet"
    )
    return FeatureConfig(path=f"{id_column}.parquet", id_column=id_column, columns=names)
