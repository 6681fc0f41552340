"""A folder for TensorBoard's projector: vectors of items to look at, with titles and what to colour them by.

`tensorboard --logdir FOLDER`, then the tab Projector. The most met items are shown: a browser draws some ten thousand.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from tensorboard.plugins import projector

from dist_gat.export.vectors import all_vectors
from dist_gat.serve.saved_model import SavedModel

MOST = 10_000


def write_projector(model: SavedModel, folder: Path) -> int:
    """Write tensors.tsv, metadata.tsv and the projector's settings. Returns the number of items shown."""
    kind = model.relation.target
    names, vectors = all_vectors(model, kind)
    met = np.concatenate([_met(model, part, kind) for part in range(model.ranges.num_parts)])
    shown = np.sort(np.argsort(-met, kind="stable")[:MOST])
    columns = {"item": names["external_id"].cast(pl.String).gather(shown)}
    if "title" in names.columns:
        columns["title"] = names["title"].gather(shown).fill_null("")
    columns["interactions"] = pl.Series(met[shown])
    # a colour scale of counts would show the first few items alone
    tenth = np.argsort(np.argsort(met, kind="stable"), kind="stable") * 10 // len(met)
    columns["popularity"] = pl.Series(tenth[shown])
    folder.mkdir(parents=True)
    table = pl.DataFrame(columns).with_columns(pl.col(pl.String).str.replace_all(r"[\t\r\n]", " "))
    table.write_csv(folder / "metadata.tsv", separator="\t", quote_style="never")
    np.savetxt(folder / "tensors.tsv", vectors.numpy()[shown], fmt="%.6g", delimiter="\t")
    config = projector.ProjectorConfig()
    own = config.embeddings.add()
    own.tensor_name, own.tensor_path, own.metadata_path = "items", "tensors.tsv", "metadata.tsv"
    projector.visualize_embeddings(str(folder), config)
    return len(shown)


def _met(model: SavedModel, part: int, kind: str) -> np.ndarray:
    """int64 [n]: how many interactions each item of a part has in training; 0 where the model doesn't say."""
    nodes, first = model.ranges.nodes_of_type(part, kind), int(model.ranges.starts[part])
    if "new_users" not in model.manifest:
        return np.zeros(len(nodes), np.int64)
    return model.degrees(part)[nodes.start - first : nodes.stop - first, 0]
