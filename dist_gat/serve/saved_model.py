"""The saved model: all that `recommend` needs, without the prepared data set.

manifest.json, config.yaml     format, schema, the predicted relation, counts, SHA-256 of the files; the recipe.
                               `pairs`: of each task that predicts pairs, see `PairTask.saved`
dense.safetensors              dense weights: inputs, layers, own scores, heads of tasks, and of a text encoder that was
                               trained its low-rank updates; `text` in the manifest has its name and digest
parts/0000.safetensors         of each node: embedding, ranking row of the model (`representation`), weighted rows of
                               the filters (`spectral`), rows of further tasks (`representation.TASK`). For new users:
                               what each layer reads (`depth.0` and so on; then without times, of a type that is
                               represented so), in-degrees by edge type (`degree`), and the
                               scale that the spectral filter has of a node (`filter_scale`)
known/0000.{indptr,items}.npy  what each user of the part has met in training and validation
history/0000.{indptr,items,weights}.npy  what the linear filter has of each user, where it counts: items, int64, and
                               the weight of each, float32
ids/TYPE.parquet               external IDs, node IDs, titles
categories/TYPE/COLUMN.parquet names of categories, by code, for the columns of new nodes
reductions/TYPE/COLUMN.{idf,directions}.npy  what makes vectors of a sparse matrix, for those of new nodes
columns/0000.npy               what is known of each item of the part, where new ones hear of those that are most like
                               them
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from scipy.sparse import csr_array
from torch import Tensor

from dist_gat.base.addresses import is_url
from dist_gat.base.errors import ConfigError, StorageError
from dist_gat.base.part_files import open_parts
from dist_gat.base.storage import (
    MANIFEST,
    open_array,
    refuse_foreign_folder,
    refuse_links_out,
    save_array,
    sha256_of,
)
from dist_gat.checkpoints.weight_files import load_tensors, part_file, part_rows, save_dense, save_tensors
from dist_gat.config.files import dump_config, load_config
from dist_gat.config.sections import Config
from dist_gat.data.column_layout import Layout, read_layouts, to_plain, width_of
from dist_gat.data.column_values import Reduction
from dist_gat.evaluate.topk import Known, known_items
from dist_gat.exchange.fail_together import together
from dist_gat.exchange.long_work import padded
from dist_gat.exchange.shared_folder import shared_folder, shared_upload
from dist_gat.exchange.worker import Worker
from dist_gat.filters.blend import Blend
from dist_gat.graph.part import Part, read_categories, read_ids
from dist_gat.graph.ranges import NodeRanges, read_ranges
from dist_gat.graph.schema import Relation, Schema, read_schema
from dist_gat.nn.recommender import Recommender
from dist_gat.sampling.graph_store import GraphStore

FORMAT, VERSION = "dist_gat.model", 6
RANKING_ROWS = "representation"
DEPTH = "depth."  # begins the names of what layers read
NONE: Mapping[str, Any] = {}
REMEDY = "run `dist-gat train` to write the model anew"


def save_model(
    config: Config, model: Recommender, rows_OR: Tensor, blend: Blend, store: GraphStore, relation: Relation,
    worker: Worker, pairs: Mapping[str, Mapping[str, Any]] = NONE, more_rows: Mapping[str, Tensor] = NONE,
    depths: Sequence[Tensor] | None = None, privacy: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Write the model of the run: into its folder, which ranks share, or to its URL. Collective. Raises `Stopped`, and
    writes nothing then.

    pairs: of tasks that predict pairs, by name, what turns products of their rows into predictions. more_rows: rows of
    these [O, …], by name, where they are not the ranking rows. depths: of `infer_representations`, for new nodes; None:
    the model has no answer for these. privacy: the promise and what is spent of it, of a private run.
    """
    ranges, weighted_Ok = store.ranges, blend.weighted_rows
    more_rows = {**more_rows, **{f"{DEPTH}{layer}": rows for layer, rows in enumerate(depths or ())}}
    if blend.scale_O1 is not None:
        more_rows["filter_scale"] = blend.scale_O1
    content = {
        "name": config.name,
        "schema": store.prepared.schema.to_plain(),
        "relation": relation.name,
        "bounds": ranges.bounds.tolist(),
        "representation_size": int(rows_OR.shape[1]),
        "spectral_rank": int(weighted_Ok.shape[1]),
        "blend": blend.weights,
        "half_life": blend.half_life,
        "data_fingerprint": store.prepared.fingerprint,
        "pairs": pairs,
        "row_sizes": {name: rows.shape[1] for name, rows in more_rows.items()},
        "privacy": privacy,
        "pseudonyms": store.prepared.manifest.get("pseudonyms"),
    }
    extra = {RANKING_ROWS: rows_OR, "spectral": weighted_Ok, **more_rows}
    if depths is not None:
        content["new_users"] = {
            "weights": store.prepared.manifest.get("weights", {}),
            "spectral_columns": blend.spectral_Ok.shape[1] if blend.spectral_weight else 0,
        }
        if model.dense.text is not None:
            content["text"] = model.dense.text.made_by
        content["columns"] = {kind: to_plain(layout) for kind, layout in store.prepared.layouts.items()}
        content["kept_columns"] = has_nearest(config, relation.target)
        extra["degree"] = torch.from_numpy(store.degrees(store.ownership.own_nodes))
    name, control = config.model_name, worker.control
    what = f"{name}: can't be written, nothing was changed"
    place = shared_upload if is_url(name) else shared_folder
    parts = padded(store.own_parts, None, control)
    with place(name, control, FORMAT, VERSION, content, worker.steps) as own:
        # what one rank does alone may fail there alone, and the others wait in the steps
        with together(control, what):
            if worker.rank == 0:
                save_dense(own, model)
                (own / "config.yaml").write_text(dump_config(config), encoding="utf-8")
                shutil.copytree(store.prepared.folder / "ids", own / "ids")
                for name in ("categories", "reductions"):
                    if depths is not None and (store.prepared.folder / name).is_dir():
                        shutil.copytree(store.prepared.folder / name, own / name)
        for part in worker.steps("writing the model", parts, len(parts)):
            with together(control, what):
                if part is not None:
                    save_tensors(part_file(own, part), part_rows(model, store, part, extra))
                    save_known(own / "known", store.prepared.parts[part], relation)
                    if content.get("kept_columns"):
                        features = store.prepared.parts[part].features[relation.target]
                        save_array(own / "columns" / f"{part:04d}.npy", features)
                    if blend.linear is not None and blend.linear_weight:
                        save_history(own / "history", part, blend.linear.kept[part])


def has_nearest(config: Config, kind: str) -> bool:
    """Whether nodes of a type hear of those that are most like them."""
    return any(
        one.nearest is not None and one.messages and one.source == kind for one in config.data.relations.values()
    )


def save_known(folder: Path, part: Part, relation: Relation) -> None:
    """What each user of a part has met."""
    users = np.array(part.ranges.nodes_of_type(part.number, relation.source), dtype=np.int64)
    known = known_items(users, [part.pairs(relation, split) for split in ("train", "valid")])
    save_array(folder / f"{part.number:04d}.indptr.npy", known.indptr)
    save_array(folder / f"{part.number:04d}.items.npy", known.items)


def save_history(folder: Path, part: int, profile_UN: csr_array) -> None:
    """The user items of a part."""
    save_array(folder / f"{part:04d}.indptr.npy", profile_UN.indptr.astype(np.int64))
    save_array(folder / f"{part:04d}.items.npy", profile_UN.indices.astype(np.int64))
    save_array(folder / f"{part:04d}.weights.npy", profile_UN.data)


@dataclass(frozen=True)
class SavedModel:
    """A model folder, opened. relation: from those who get recommendations to what is recommended."""

    folder: Path
    manifest: dict[str, Any]
    ranges: NodeRanges
    relation: Relation

    def ids(self, node_type: str) -> pl.DataFrame:
        return read_ids(self.folder, node_type, REMEDY)

    def categories(self, node_type: str, column: str) -> pl.Series:
        """The names of a column's categories, by code. Raises `StorageError`."""
        return read_categories(self.folder, node_type, column, REMEDY)

    def reduction(self, node_type: str, column: str, size: int) -> Reduction:
        """What makes vectors of so many numbers of a column's sparse matrix, or with 0 weights of its categories.

        Raises `StorageError`.
        """
        start = self.folder / "reductions" / node_type
        idf = np.asarray(open_array(start / f"{column}.idf.npy", ("float64",), None, REMEDY))
        file = start / f"{column}.directions.npy"
        return Reduction(idf, np.asarray(open_array(file, ("float64",), (size, len(idf)), REMEDY)))

    def item_columns(self, part: int) -> np.ndarray:
        """float32 [items of the part, width], of a model whose `kept_columns` says so. Raises `StorageError`."""
        kind = self.relation.target
        shape = (len(self.ranges.nodes_of_type(part, kind)), width_of(self.layouts[kind]))
        return open_array(self.folder / "columns" / f"{part:04d}.npy", ("float32",), shape, REMEDY)

    @cached_property
    def config(self) -> Config:
        """The recipe. Raises `ConfigError`."""
        return load_config(self.folder / "config.yaml")

    @cached_property
    def layouts(self) -> dict[str, Layout]:
        """Node type → the columns of its nodes, of a model that has answers for new nodes. Raises `StorageError`."""
        return read_layouts(self.manifest, self.schema.node_types, self.folder / MANIFEST, REMEDY)

    @cached_property
    def schema(self) -> Schema:
        return read_schema(self.manifest, self.folder / MANIFEST, REMEDY)

    def check_new_nodes(self) -> None:
        """Raise `ConfigError` for a model that has no answer for new users and items."""
        if "new_users" not in self.manifest or "columns" not in self.manifest:
            raise ConfigError(
                f"{self.folder}: saved before there were answers for new users and items; run `dist-gat train` with "
                "the recipe to write the model anew"
            )

    @property
    def row_sizes(self) -> dict[str, int]:
        """Columns of the saved rows, by their name."""
        sizes = {RANKING_ROWS: self.manifest["representation_size"], "spectral": self.manifest["spectral_rank"]}
        return sizes | self.manifest["row_sizes"]

    @property
    def linear_weight(self) -> float:
        return float(self.manifest["blend"]["linear"])

    def ranking_rows(self, part: int) -> list[Tensor]:
        """float32 [nodes of the part, R], [nodes of the part, k]: side by side, their inner products are the scores
        without the linear filter's. Views of the file. Raises `StorageError`.
        """
        return [self.rows(part, name) for name in (RANKING_ROWS, "spectral") if self.row_sizes[name]]

    def rows(self, part: int, name: str) -> Tensor:
        """float32 [nodes of the part, columns]: rows of one name, a view of the file. Raises `StorageError`."""
        file, num_nodes = part_file(self.folder, part), int(np.diff(self.ranges.starts)[part])
        rows, expected = load_tensors(file).get(name), (num_nodes, self.row_sizes[name])
        if rows is None or tuple(rows.shape) != expected:
            found = "none" if rows is None else f"{list(rows.shape)}"
            raise StorageError(f"{file}: expected {name} rows {list(expected)}, found {found}; {REMEDY}")
        # whatever training computed with
        return rows.float()

    def degrees(self, part: int) -> np.ndarray:
        """int64 [nodes of the part, K]: in-degrees by edge type, of a model that has answers for new users. Raises
        `StorageError`."""
        file, num_nodes = part_file(self.folder, part), int(np.diff(self.ranges.starts)[part])
        found = load_tensors(file).get("degree")
        if found is None or found.dtype != torch.int64 or len(found) != num_nodes:
            raise StorageError(f"{file}: expected degree, int64, of {num_nodes} nodes; {REMEDY}")
        return found.numpy()

    def known(self, part: int) -> Known:
        """What each user of the part has met. Raises `StorageError`."""
        return Known(*self._items("known", part))

    def _items(self, folder: str, part: int) -> tuple[np.ndarray, np.ndarray]:
        """Row pointers of the users of a part, and items."""
        files, num_users = self.folder / folder, len(self.ranges.nodes_of_type(part, self.relation.source))
        indptr = np.asarray(open_array(files / f"{part:04d}.indptr.npy", ("int64",), (num_users + 1,), REMEDY))
        items = np.asarray(open_array(files / f"{part:04d}.items.npy", ("int64",), (int(indptr[-1]),), REMEDY))
        return indptr, items

    def user_items(self, part: int) -> csr_array:
        """float32 [U, N]: the training interactions of each user of the part, with weights. Raises `StorageError`."""
        indptr, items = self._items("history", part)
        weights = np.asarray(
            open_array(self.folder / "history" / f"{part:04d}.weights.npy", ("float32",), items.shape, REMEDY)
        )
        return csr_array((weights, items, indptr), shape=(len(indptr) - 1, self.ranges.num_nodes))


def open_model(
    folder: str | Path, verify: bool = False, progress: Callable[[str], None] = lambda message: None,
    parts: Collection[int] | None = None, cache: Path | None = None,
) -> SavedModel:  # fmt: skip
    """Open a model folder. Size and ends of its files are always checked, their whole SHA-256 with `verify`.

    folder: also a URL, from which its files are fetched into `cache` of this host: the rows of these parts, by default
    of all, and what is of no part. Raises `StorageError`.
    """
    folder, manifest = open_parts(folder, FORMAT, VERSION, REMEDY, verify, progress, parts, cache)
    schema = read_schema(manifest, folder / MANIFEST, REMEDY)
    ranges = read_ranges(manifest, schema.node_types, folder / MANIFEST, REMEDY)
    expected = {
        "representation_size": int, "spectral_rank": int, "blend": dict, "data_fingerprint": str, "pairs": dict,
        "row_sizes": dict,
    }  # fmt: skip
    wrong = [key for key, kind in expected.items() if not isinstance(manifest.get(key), kind)]
    if wrong or not isinstance(manifest["blend"].get("linear"), int | float):
        raise StorageError(f"{folder / MANIFEST}: expected {', '.join(wrong) or 'blend.linear'}; {REMEDY}")
    relations = [relation for relation in schema.relations if relation.name == manifest.get("relation")]
    if not relations:
        raise StorageError(f"{folder / MANIFEST}: expected relation, the name of one in the schema; {REMEDY}")
    return SavedModel(folder, manifest, ranges, relations[0])


def check_run_folder(run_folder: Path) -> None:
    """Raise `StorageError` where a run would leave its folder, `ConfigError` where it would replace a foreign model."""
    refuse_links_out(run_folder)
    refuse_foreign_folder(run_folder / "model", FORMAT, "run", "dist-gat train")


def model_digest(folder: Path) -> str | None:
    """A digest that distinguishes a run's saved model from an earlier one; None without a model."""
    manifest = folder / "model" / MANIFEST
    return sha256_of(manifest) if manifest.is_file() else None
