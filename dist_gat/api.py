"""The verbs as Python functions. The command line adds nothing but parsing and printing.

    from dist_gat import api

    config = api.load_config("configs/ml-100k.yaml", ["train.num_epochs=5"])
    api.prepare(config)
    api.train(config)
    api.evaluate(config)["test"]["recall@20"]
    api.compare(config, ["popularity", "ease", "recipe"])["models"]["ease"]["metrics"]["recall@20"]
    api.recommend(config.run_folder, users=[196], k=10)

`to_networkx`, `to_pyg` and `to_dgl` take what `open_prepared(config.data.prepared)` returns; `tables_from` leads back.
`fetch` and `write_synthetic` are the verb `data`, `write_first_recipe` is `init`; `doctor()` returns its findings.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import polars as pl

from dist_gat.base.addresses import is_url
from dist_gat.base.errors import ConfigError, StorageError
from dist_gat.base.progress_listener import Progress, be_silent
from dist_gat.base.storage import refuse_links_out
from dist_gat.config.files import load_config
from dist_gat.config.sections import Config
from dist_gat.convert.tables_from import tables_from
from dist_gat.convert.to_dgl import to_dgl
from dist_gat.convert.to_networkx import to_networkx
from dist_gat.convert.to_pyg import to_pyg
from dist_gat.data.pseudonyms import open_pseudonyms
from dist_gat.data.registry import fetch
from dist_gat.data.synthetic import write_synthetic
from dist_gat.explain.explanation import explain_item
from dist_gat.explain.opened_run import OpenedRun, with_run
from dist_gat.explain.trained_run import RunSource, locate_run, open_trained_run, url_of
from dist_gat.graph.inspection import inspect_prepared
from dist_gat.graph.part import open_prepared
from dist_gat.launcher.doctor import examine as doctor
from dist_gat.launcher.stop_signals import on_stop_signals
from dist_gat.pages.explanation_page import explanation_page
from dist_gat.pages.inspection_page import inspection_page
from dist_gat.pages.page import save_page
from dist_gat.pages.report import report_page
from dist_gat.plan.constants import DEFAULT, read_constants
from dist_gat.plan.graph_shape import GraphShape
from dist_gat.plan.plan import make_plan
from dist_gat.serve.clear_ids import hide_users, with_clear_ids
from dist_gat.serve.fetched_run import model_url
from dist_gat.serve.given_nodes import NewRows
from dist_gat.serve.new_edges import NO_EDGES, EdgeRows
from dist_gat.serve.new_items_file import new_item_rows
from dist_gat.serve.new_nodes import open_new_nodes
from dist_gat.serve.opened_model import open_answers, open_whole, source_of
from dist_gat.serve.pairs_file import read_pairs
from dist_gat.serve.predict import Unknown, open_predictor, predict_pairs
from dist_gat.serve.recommend_file import read_users, recommend_file
from dist_gat.serve.saved_model import open_model
from dist_gat.tune.search import tune
from dist_gat.workflows.compare import compare
from dist_gat.workflows.export_run import export_run
from dist_gat.workflows.first_recipe import write_first_recipe
from dist_gat.workflows.fit import fit
from dist_gat.workflows.forget import forget
from dist_gat.workflows.frame_recommender import FrameRecommender
from dist_gat.workflows.predict_file import predict_file
from dist_gat.workflows.rotate_key import rotate_key
from dist_gat.workflows.run import evaluate, prepare, train

__all__ = [
    "FrameRecommender",
    "compare",
    "doctor",
    "evaluate",
    "explain",
    "export",
    "fit",
    "fetch",
    "forget",
    "inspect",
    "load_config",
    "open",
    "plan",
    "predict",
    "prepare",
    "read_users",
    "recommend",
    "recommend_to",
    "open_prepared",
    "report",
    "tables_from",
    "to_dgl",
    "to_networkx",
    "to_pyg",
    "rotate_key",
    "train",
    "tune",
    "write_first_recipe",
    "write_synthetic",
]


def inspect(
    prepared: str | Path, html: str | Path | None = None, verify: bool = False, progress: Progress = be_silent
) -> dict[str, Any]:
    """What is in a prepared folder: counts, degrees, cold and isolated nodes, labels, times, parts.

    `inspect_prepared` says what is in the result; `html` is a file for a page of it. Its files are checked as in
    `train`. Raises `StorageError` where the folder is not prepared or damaged.
    """
    found = inspect_prepared(open_prepared(prepared, verify, progress), progress)
    if html is not None:
        save_page(Path(html), inspection_page(found))
    return found


def recommend(
    model: RunSource, users: Sequence[Any] = (), k: int = 10, verify: bool = False, progress: Progress = be_silent,
    overrides: Sequence[str] = (), new_users: NewRows | str | None = None,
    new_items: NewRows | str | None = None, key: str | Path | None = None,
    new_edges: Mapping[str, EdgeRows] = NO_EDGES,
) -> pl.DataFrame:  # fmt: skip
    """The K best new items of each user: columns user_id, item_id, score, rank[, title].

    `model` is a run folder, the model folder in it, or the recipe of a run, with `overrides`; nothing else is read. Its
    files are checked as in `train`. A user who has met every item has no row. Raises `DataError` for an unknown user,
    `StorageError` for a damaged model.

    new_users: in place of `users`, some whom training never saw, with what they have met and their columns: a file, a
    data frame or dictionaries, see `dist_gat.serve.new_users_file`. Items that the model doesn't know are left out,
    which `progress` is told. new_items: candidates whom training never saw, in the same ways, see
    `dist_gat.serve.new_items_file`. new_edges: by relation, a table that joins them with nodes of the graph, of
    the form of the relation's own table, see `dist_gat.serve.new_edges`. key: the key file of a model with pseudonyms:
    `users` are external IDs then, and so are those that come back; without it all are pseudonyms.
    """
    opened = open_answers(open_model(model_folder(model, overrides), verify, progress))
    if key is None:
        return opened.recommend(
            users, k, new_users=new_users, new_items=new_items, new_edges=new_edges, progress=progress
        )
    if new_users is not None or new_items is not None:
        raise ConfigError("key: goes with known users alone; new users and items have no pseudonyms")
    pseudonyms = open_pseudonyms(Path(key))
    found = opened.recommend(hide_users(opened.saved, pseudonyms, users), k, progress=progress)
    return with_clear_ids(opened.saved, pseudonyms, found)


def open(
    model: RunSource, verify: bool = False, progress: Progress = be_silent, overrides: Sequence[str] = (),
    index_probes: int | None = None,
) -> OpenedRun:  # fmt: skip
    """A saved model, opened once to answer many calls of `recommend`, `score`, `similar` and `explain`.

    `model` is as in `recommend`, which gives the same bits. A run may write another model meanwhile: the opened one
    stays what it is. `explain` reads the run's data set too, see `explain`. Raises `StorageError`.

    index_probes: search an index of the items, which looks into so many of its lists and finds most of the best items
    (extra `index`); its `recall` says how many. None: exactly.
    """
    folder = model_folder(model, overrides)
    is_alone = not isinstance(model, Config) and Path(model) == folder
    opened = open_whole(folder, verify, progress, index_probes)
    return with_run(opened, None if is_alone else model, overrides)


def recommend_to(
    model: RunSource, output: str | Path, users: str | Path | None = None, k: int = 10, overrides: Sequence[str] = (),
    verify: bool = False, progress: Progress = be_silent, new_items: NewRows | str | None = None,
    new_edges: Mapping[str, EdgeRows] = NO_EDGES,
) -> dict[str, Any]:  # fmt: skip
    """The same rows, without titles, of all users, or of those in a file, as a table: see `recommend_file`.

    A signal to stop raises `KeyboardInterrupt`, and leaves what stood under the name `output`.
    """
    opened = open_model(model_folder(model, overrides), verify, progress)
    added = None
    if new_items is not None or new_edges:
        given = None if new_items is None else source_of(new_items)
        added = new_item_rows(given, open_new_nodes(opened), progress, new_edges)
    stop = threading.Event()
    with on_stop_signals(stop.set):
        asked = None if users is None else Path(users)
        return recommend_file(opened, asked, Path(output), k, progress, stop.is_set, added)


@overload
def predict(
    model: str | Path, pairs: pl.DataFrame | str | Path, verify: bool = ..., progress: Progress = ..., *,
    unknown: Unknown = ..., output: None = ..., workers: int | None = ...,
) -> pl.DataFrame: ...  # fmt: skip


@overload
def predict(
    model: str | Path, pairs: str | Path, verify: bool = ..., progress: Progress = ..., *,
    unknown: Unknown = ..., output: str | Path, workers: int | None = ...,
) -> dict[str, Any]: ...  # fmt: skip


def predict(
    model: str | Path, pairs: pl.DataFrame | str | Path, verify: bool = False, progress: Progress = be_silent, *,
    unknown: Unknown = "error", output: str | Path | None = None, workers: int | None = None,
) -> pl.DataFrame | dict[str, Any]:  # fmt: skip
    """The rows of a table of pairs (columns user_id, item_id) with a column `prediction` more: a rating, a probability
    or an expected count, as `task.kind` says.

    `model` is a run folder or the model folder in it; nothing else is read. pairs: a data frame, or a file in Parquet
    or CSV. With `output`, a file too, pairs are a file that goes through batch by batch, of any size, and what
    `predict_file` says of it comes back; workers: by default 1, and more for a large file. Raises
    `DataError` for an ID that training never saw, unless `unknown` is null: then the prediction is null. Raises
    `ConfigError` for a model that ranks.
    """
    opened = open_model(model_folder(model), verify, progress)
    if output is None:
        return predict_pairs(
            opened,
            pairs if isinstance(pairs, pl.DataFrame) else read_pairs(Path(pairs), open_predictor(opened).columns),
            unknown,
        )
    if isinstance(pairs, pl.DataFrame):
        raise ConfigError("output: goes with a file of pairs; write the data frame that predict returns without it")
    return predict_file(opened, Path(pairs), Path(output), unknown, workers, progress)


def export(
    model: RunSource, output: str | Path, kinds: Sequence[str] = ("vectors",), license: str = "",
    overrides: Sequence[str] = (), verify: bool = False, progress: Progress = be_silent,
) -> dict[str, Any]:  # fmt: skip
    """Write a saved model as files that other tools read, see `export_run`. `model`, `overrides`, `verify`: as in
    `recommend`.
    """
    opened = open_model(model_folder(model, overrides), verify, progress)
    return export_run(opened, Path(output), kinds, license, progress)


def model_folder(source: RunSource, overrides: Sequence[str] = ()) -> Path:
    """The model folder of a run, from its folder, its configuration or its recipe; or the folder itself.

    Of a URL the folder is one of this host. Raises `StorageError` where there is none.
    """
    if not isinstance(source, Config) and is_url(source) and model_url(str(source)) == str(source):
        return open_model(str(source)).folder
    is_folder = not isinstance(source, Config) and Path(source).is_dir()
    folder = Path(source) if is_folder else locate_run(source, overrides)[1]  # type: ignore[arg-type]
    if (folder / "model").is_dir():
        refuse_links_out(folder)
        return folder / "model"
    if not folder.exists():
        raise StorageError(f"{folder}: no such run folder; run `dist-gat train` first, or set run=FOLDER to another")
    return folder


def explain(
    run: RunSource, user: Any, item: Any = None, top: int = 10, html: str | Path | None = None,
    overrides: Sequence[str] = (), verify: bool = False, progress: Progress = be_silent,
) -> dict[str, Any]:  # fmt: skip
    """What each of a user's interactions contributes to the score of an item, and the list as it would be without it.

    `run` is a configuration, a recipe or a run folder; the data set that the model was trained on is read too.
    `dist_gat.explain.explanation` says what is in the result; `html` is a file for a page of it. With `verify` the
    SHA-256 of model and data set is checked first. Raises `DataError` for an unknown user or item, `StorageError` where
    there is no saved model of this data set.
    """
    item = None if item is None else str(item)
    opened = open_trained_run(run, overrides, verify, progress)
    explanation = explain_item(opened, str(user), item, top, progress)
    if html is not None:
        save_page(Path(html), explanation_page(explanation))
    return explanation


def report(
    run: RunSource, html: str | Path | None = None, overrides: Sequence[str] = (), verify: bool = False,
    progress: Progress = be_silent,
) -> Path:  # fmt: skip
    """Write the page of a run, `report.html` in its folder by default: quality, learning, slices, cost, attention.

    `run` and `verify` are as in `explain`; a run that was stopped has a page too, but nothing to verify. Returns the
    file. Raises `StorageError` where the folder is not that of a run.
    """
    if html is None and url_of(run, overrides) is not None:
        raise ConfigError(f"{run}: the run is at a URL, so say where its page goes: html=FILE, or --html FILE")
    page = report_page(run, overrides, verify, progress)
    path = locate_run(run, overrides)[1] / "report.html" if html is None else Path(html)
    save_page(path, page)
    return path


def plan(
    config: Config, nodes: int, edges: int, workers: int, bandwidth_gbps: float | None = None,
    hosts: int | None = None, cores: int | None = None, constants: str | Path | None = None, **shape: Any,
) -> dict[str, Any]:  # fmt: skip
    """What training would need on a graph of so many nodes and training interactions: nothing is read or started.

    bandwidth_gbps: gigabytes a second that each worker can send. constants: a file of `benchmarks.cost`; by default
    those of the kind of device, with their `origin` in the result. shape: fields of `GraphShape`. Returns what
    `Plan.summary` does, in bytes and seconds. Raises `ConfigError`.
    """
    file = Path(constants) if constants is not None else DEFAULT[config.launch.use_gpu]
    bandwidth = None if bandwidth_gbps is None else 1e9 * bandwidth_gbps
    graph = GraphShape(nodes, edges, **shape)
    return make_plan(config, graph, workers, read_constants(file), hosts, cores, bandwidth).summary()
