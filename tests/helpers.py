"""What many tests share: small prepared folders, dense oracles of a prepared graph, and ranks that stay up.

`Ranks` keeps its processes for the whole session, since a new one spends seconds on importing torch and DGL.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
import torch.distributed as dist

from dist_gat.config.files import parse_config
from dist_gat.config.sections import Config, DataConfig, NegativesConfig, PartsConfig, SamplingConfig
from dist_gat.data.synthetic import write_synthetic
from dist_gat.graph.part import PreparedGraph, open_prepared
from dist_gat.graph.prepare import prepare_dataset
from dist_gat.graph.schema import INTERACTIONS
from dist_gat.launcher.preload import PRELOAD
from dist_gat.sampling.graph_store import GraphStore
from dist_gat.sampling.sampler import SeedBlockSampler
from dist_gat.tasks.ranking_seeds import ranking_source

Pairs = Iterable[tuple[int, int]]
NUM_FEATURES = {"user": 3, "item": 2}
# of the matrix: `known`, numbers, and of items a category and up to three more
WIDTHS = {"user": 1 + 3, "item": 1 + 2 + 1 + 3}
RAW = {"standardize": False}
USER, ITEM = INTERACTIONS.node_types
(INTERACTS,) = INTERACTIONS.relations


def parse_sections(tree: dict[str, Any], sections: dict[str, dict[str, Any]]) -> Config:
    """The configuration of a tree, with some settings of its sections changed or added."""
    return parse_config(tree | {name: tree.get(name, {}) | changes for name, changes in sections.items()})


def write_pairs(path: Path, pairs: Pairs) -> None:
    path.write_text("user_id,item_id\n" + "".join(f"{user},{item}\n" for user, item in pairs))


def prepare_pairs(
    folder: Path,
    train: Pairs,
    valid: Pairs = (),
    test: Pairs = (),
    num_parts: int = 4,
    method: str = "hash",
    seed: int = 0,
) -> PreparedGraph:
    """Prepare (user, item) pairs of integers; without `test` all of them are for training."""
    folder.mkdir(parents=True, exist_ok=True)
    splits = {"train": list(train), "valid": list(valid), "test": list(test)}
    files = {split: f"{split}.csv" for split, pairs in splits.items() if pairs}
    for split, name in files.items():
        write_pairs(folder / name, splits[split])
    given: dict[str, Any] = {"split": {"method": "files"}, **files}
    alone = {"split": {"method": "random", "valid_ratio": 0, "test_ratio": 0}, "interactions": "train.csv"}
    return prepare(folder, given if "test" in files else alone, num_parts, method, seed)


def prepare_synthetic(
    folder: Path, num_parts: int = 4, method: str = "metis", num_users: int = 120, num_items: int = 60
) -> PreparedGraph:
    """Prepare a synthetic data set with titles, numbers of users and most items, and categories of these items."""
    write_synthetic(folder, num_users, num_items, 4, 9, 0.2, seed=0)
    for kind, count in (("user", num_users), ("item", num_items - 5)):
        columns = [f"f{n}" for n in range(NUM_FEATURES[kind])]
        rows = [
            ",".join([f"{kind[0]}{i}", *(f"{i + n / 8}" for n in range(len(columns))), f"c{i % 5}", tags])
            for i, tags in ((i, " ".join(tags_of(i))) for i in range(count))
        ]
        header = ",".join(["id", *columns, "cluster", "tags"])
        (folder / f"{kind}_features.csv").write_text("\n".join([header, *rows]))
    settings = {
        "interactions": "interactions.csv",
        "split": {"method": "random", "valid_ratio": 0.1, "test_ratio": 0.15},
        "item_titles": {"path": "items.csv", "id_column": "item_id", "columns": ["title"]},
        "user_features": {"path": "user_features.csv", "id_column": "id", "columns": ["f0", "f1", "f2"], **RAW},
        "item_features": {"path": "item_features.csv", "id_column": "id", "columns": ["f0", "f1"], **RAW},
        "nodes": {
            "item": {
                "table": "item_features.csv", "id_column": "id",
                "columns": {"cluster": "category", "tags": "categories"},
            }
        },
    }  # fmt: skip
    return prepare(folder, settings, num_parts, method)


def tags_of(number: int) -> list[str]:
    """Of an item: up to three, and none of some items."""
    return [f"t{tag}" for tag in range(number % 4)]


def prepare(folder: Path, data: dict[str, Any], num_parts: int, method: str, seed: int = 0) -> PreparedGraph:
    target = folder / f"prepared-{method}-{num_parts}"
    config = DataConfig.model_validate({"path": str(folder), "prepared": str(target), **data})
    prepare_dataset("test", config, PartsConfig.model_validate({"num_parts": num_parts, "method": method}), seed)
    return open_prepared(target)


def random_pairs(num_users: int, num_items: int, density: float, seed: int = 0) -> list[tuple[int, int]]:
    """Distinct pairs in which every user and every item occurs."""
    met = np.random.default_rng(seed).random((num_users, num_items)) < density
    met[np.arange(num_users), np.arange(num_users) % num_items] = True
    met[np.arange(num_items) % num_users, np.arange(num_items)] = True
    return [(int(user), int(item)) for user, item in np.argwhere(met)]


def split_pairs(prepared: PreparedGraph, split: str) -> np.ndarray:
    """int64 [m, 2]: all (user, item) nodes of a split, in their global order."""
    return np.concatenate([part.pairs(INTERACTS, split) for part in prepared.parts])


def adjacency(prepared: PreparedGraph) -> scipy.sparse.csr_array:
    """float64 [nodes, nodes]: 1 at (destination, source) of every message, from the training pairs alone."""
    pairs = split_pairs(prepared, "train")
    size = prepared.ranges.num_nodes
    one_way = scipy.sparse.coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    return (one_way + one_way.T).tocsr()


def ranking_sampler(
    store: GraphStore,
    sampling: SamplingConfig,
    negatives: NegativesConfig,
    batch_size: int,
    seed: int = 0,
    needs_degree: bool = False,
) -> SeedBlockSampler:
    """The sampler of a ranking of items for users."""
    source = ranking_source(store, INTERACTS, negatives, batch_size, seed)
    return SeedBlockSampler(store, sampling, source, seed, needs_degree)


class Ranks:
    """Processes that run one function after another, each time in a new gloo process group on loopback."""

    def __init__(self) -> None:
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._pipes: list[Connection] = []

    def run(self, world_size: int, function: Callable[..., Any], *args: Any, timeout_s: float = 60.0) -> list[Any]:
        """What `function(*args)`, a module-level function, returns on each rank. One rank has no process group."""
        self._start(world_size)
        with tempfile.TemporaryDirectory() as meeting:
            surroundings = list(sys.path), dict(os.environ)
            task = (surroundings, function, args, world_size, str(Path(meeting, "store")), timeout_s)
            for rank in range(world_size):
                self._pipes[rank].send((rank, *task))
            answers = [self._answer(rank, timeout_s + 10) for rank in range(world_size)]
        errors = [f"rank {rank}: {error}" for rank, (error, _) in enumerate(answers) if error]
        if errors:
            self.close()  # a rank whose group did not form has no other one that does
        assert not errors, "\n".join(errors)
        return [result for _, result in answers]

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()
        self._processes, self._pipes = [], []

    def _answer(self, rank: int, limit_s: float) -> Any:
        if self._pipes[rank].poll(limit_s):
            return self._pipes[rank].recv()
        self.close()
        raise AssertionError(f"rank {rank} did not return within {limit_s} s")

    def _start(self, world_size: int) -> None:
        os.environ.update({"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)  # seconds, but once for all ranks, and for local workers of runs
        new = range(len(self._processes), world_size)
        for _ in new:
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there,), daemon=True)
            process.start()
            there.close()
            self._processes.append(process)
            self._pipes.append(here)
        for rank in new:
            assert self._answer(rank, 120) == "ready", "imports are done before any timeout runs"


def _serve(pipe: Connection) -> None:
    torch.set_num_threads(1)
    pipe.send("ready")
    while True:
        rank, (path, environment), function, args, world_size, store, timeout_s = pipe.recv()
        sys.path[:] = path
        os.environ.update(environment)
        try:
            if world_size > 1:
                file_store = dist.FileStore(store, world_size)
                timeout = timedelta(seconds=timeout_s)
                dist.init_process_group("gloo", store=file_store, rank=rank, world_size=world_size, timeout=timeout)
            answer = (None, function(*args))
        except BaseException:
            answer = (traceback.format_exc(), None)
        if dist.is_initialized():
            dist.destroy_process_group()
        pipe.send(answer)


def same_on_all(results: Sequence[Any]) -> Any:
    """The one result that all ranks have."""
    for result in results[1:]:
        np.testing.assert_equal(result, results[0])
    return results[0]
