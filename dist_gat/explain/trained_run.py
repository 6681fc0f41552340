"""`TrainedRun`: a run folder and its prepared data set, opened in one process to look into the model.

No worker is started, and embedding rows are read for the nodes that are asked for, part by part.

Shape legend: n nodes asked for, E embedding size, R representation size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dist_gat.base.addresses import is_url
from dist_gat.base.errors import ConfigError, StorageError
from dist_gat.base.run_folder import CONFIG_FILE
from dist_gat.base.storage import refuse_links_out
from dist_gat.checkpoints.weight_files import load_dense, load_rows, part_file
from dist_gat.config.files import load_config
from dist_gat.config.sections import Config
from dist_gat.evaluate.inference import input_rows
from dist_gat.exchange.channel import Channel
from dist_gat.explain.neighborhood import Neighborhood, encode_targets, find_neighborhood
from dist_gat.graph.made_from import open_made
from dist_gat.graph.part import PreparedGraph
from dist_gat.nn.add_text import add_trained_text
from dist_gat.nn.edge_terms import prepared_kinds
from dist_gat.nn.encoder import Encoded
from dist_gat.nn.recommender import Recommender, build_recommender, untimed_type
from dist_gat.sampling.graph_store import GraphStore, open_store
from dist_gat.sampling.ownership import Ownership
from dist_gat.sampling.sampler import gather_features
from dist_gat.serve.fetched_run import copy_run
from dist_gat.serve.saved_model import SavedModel, open_model
from dist_gat.tasks.build_task import build_task
from dist_gat.tasks.task import Task

RunSource = Config | str | Path
RECIPES = (".yaml", ".yml")


@dataclass(frozen=True)
class TrainedRun:
    """model: the dense weights and the decoder; its table has no rows."""

    folder: Path
    config: Config
    saved: SavedModel
    store: GraphStore
    task: Task
    model: Recommender

    def neighborhood(self, targets: np.ndarray) -> Neighborhood:
        """The sub-graph that int64 [T] distinct target nodes are computed from."""
        return find_neighborhood(self.store, targets, len(self.model.encoder.layers))

    def input_rows(self, nodes: np.ndarray) -> Tensor:
        """[n, E]: ID embeddings and projected features, what the first layer reads."""
        embedding = self._read("embedding", self.config.model.embedding_size, nodes)
        with torch.no_grad():
            features, text = gather_features(self.store, nodes), self.model.dense.text
            features = features if text is None else text.renewed(features)
            return input_rows(self.model, self.store.ranges, nodes, embedding, features)

    def representations(self, nodes: np.ndarray) -> Tensor:
        """[n, R]: the rows that `recommend` multiplies."""
        return self._read("representation", self.saved.manifest["representation_size"], nodes)

    def _read(self, name: str, size: int, nodes: np.ndarray) -> Tensor:
        """[n, size]: saved rows of nodes, in float32 as in evaluation, whatever precision training used."""
        starts, part_of = self.saved.ranges.starts, self.saved.ranges.part_of(nodes)
        rows = torch.empty(len(nodes), size)
        for part in np.unique(part_of):
            whole = torch.empty(int(starts[part + 1] - starts[part]), size)
            load_rows(part_file(self.saved.folder, part), {name: whole})
            mine = np.flatnonzero(part_of == part)
            rows[torch.from_numpy(mine)] = whole[torch.from_numpy(nodes[mine] - starts[part])]
        return rows

    def encode(self, neighborhood: Neighborhood, input_SE: Tensor) -> Encoded:
        """Representations of the targets and the attention of every layer; see `encode_targets`.

        Targets of the model's `untimed` type are represented without edges that have times, as in inference.
        """
        chunk, untimed = self.config.evaluate.edge_chunk, self.model.untimed
        encoded = encode_targets(self.model.encoder, neighborhood, input_SE, chunk)
        if untimed is None:
            return encoded
        without = encode_targets(self.model.encoder, neighborhood.without_times(), input_SE, chunk)
        targets = neighborhood.nodes[: len(encoded.rows_NR)]
        is_untimed = torch.from_numpy(self.store.ranges.is_of_type(targets, untimed))
        return encoded._replace(rows_NR=torch.where(is_untimed[:, None], without.rows_NR, encoded.rows_NR))


def locate_run(source: RunSource, overrides: Sequence[str] = ()) -> tuple[Config, Path]:
    """The configuration and the folder of a run, from either of them. Raises `ConfigError`, `StorageError`.

    A folder's own `config.yaml` is read, with the overrides on top, and the folder is the run wherever it was
    moved to; file names in it are still relative to the working directory. Of a run at a URL the folder is a copy of
    this host.
    """
    if not isinstance(source, Config) and is_url(source):
        folder = copy_run(str(source))
        return load_config(folder / CONFIG_FILE, overrides), folder
    if not isinstance(source, Config) and not Path(source).exists() and Path(source).suffix not in RECIPES:
        raise StorageError(
            f"{source}: no such run folder; give one that `dist-gat train` wrote, or the recipe of a run"
        )
    if isinstance(source, Config) or not Path(source).is_dir():
        config = source if isinstance(source, Config) else load_config(source, overrides)
        folder = copy_run(config.run, config.launch.cache_folder) if is_url(config.run) else config.run_folder
    else:
        folder = Path(source)
        if not (folder / "config.yaml").is_file():
            raise StorageError(
                f"{folder}: expected config.yaml in a run folder; give a folder that `dist-gat train` wrote"
            )
        config = load_config(folder / "config.yaml", overrides)
    refuse_links_out(folder)
    return config, folder


def url_of(source: RunSource, overrides: Sequence[str] = ()) -> str | None:
    """Where a run is whose folder is a copy then, as `locate_run` gives it; None of one in a folder."""
    if not isinstance(source, Config) and is_url(source):
        return str(source)
    if not isinstance(source, Config):
        if Path(source).is_dir() or Path(source).suffix not in RECIPES:
            return None
        source = load_config(source, overrides)
    return source.run if is_url(source.run) else None


def refuse_urls(verb: str, config: Config, source: RunSource | None = None) -> None:
    """Raise `ConfigError` for what `verb` would change in place, which can't be done at a URL."""
    named = "" if source is None or isinstance(source, Config) else str(source)
    for name in (named, config.run, config.data.prepared):
        if is_url(name):
            raise ConfigError(
                f"{name}: `{verb}` works on folders; copy run and prepared data here, and set run and data.prepared to "
                "these copies"
            )


def open_trained_run(
    source: RunSource, overrides: Sequence[str] = (), verify: bool = False,
    progress: Callable[[str], None] = lambda message: None,
) -> TrainedRun:  # fmt: skip
    """Open the saved model of a run and its data set; with `verify` the SHA-256 of their files is checked first.

    Raises `StorageError` where one is missing or they don't belong together, `ConfigError` for a model without
    attention.
    """
    config, folder = locate_run(source, overrides)
    saved = open_model(folder / "model", verify, progress)
    prepared = open_made(config, verify, progress, has_model=True)
    require_same_data(saved, prepared)
    if not config.sampling.fanouts:
        raise ConfigError(f"{folder}: sampling.fanouts is [], so this model has no attention layer to look into")
    store = open_store(prepared, Channel("sampling"), "auto")
    no_rows = Ownership(np.zeros(2, dtype=np.int64), 0)
    num_layers = len(config.sampling.fanouts)
    task = build_task(config, prepared)
    model = build_recommender(
        config.model, num_layers, prepared.layouts, no_rows, Channel("rows"), config.seed,
        build_head=task.build_head, kinds=prepared_kinds(prepared, config.sampling),
        untimed=untimed_type(config.sampling, task.relation),
    )  # fmt: skip
    add_trained_text(model, config, prepared)
    load_dense(saved.folder, model)
    return TrainedRun(folder, config, saved, store, task, model)


def require_same_data(saved: SavedModel, prepared: PreparedGraph) -> None:
    """Raise `StorageError` unless the model was trained on this data set."""
    if saved.manifest["data_fingerprint"] != prepared.fingerprint:
        raise StorageError(
            f"{saved.folder}: the model was trained on another prepared data set than {prepared.folder}; "
            "prepare it again with the same settings, or train again"
        )
