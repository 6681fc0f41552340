"""`trained_encoder`: the text encoder of a saved model, as training left it."""

from __future__ import annotations

from dist_gat.checkpoints.weight_files import DENSE, load_module, load_tensors
from dist_gat.config.text_section import TextEncoderConfig
from dist_gat.data.column_layout import trainable_text
from dist_gat.serve.saved_model import SavedModel
from dist_gat.text.text_encoder import TextEncoder
from dist_gat.text.text_tower import open_tower

TOWER = "text.tower."  # begins the names of what was trained


def trained_column(model: SavedModel, node_type: str) -> str | None:
    """The column of a node type whose encoder was trained, or None."""
    column = trainable_text(model.layouts) if model.config.model.text is not None else None
    return column.vector.name if column is not None and column.node_type == node_type else None


def trained_encoder(model: SavedModel, config: TextEncoderConfig) -> TextEncoder:
    """Open it. Raises `ConfigError` where its files are gone, or have changed since, `StorageError` for a damaged
    model."""
    tuning = model.config.model.text
    assert tuning is not None, "there is a `trained_column`"
    tower = open_tower(config, tuning, model.manifest["text"]["fingerprint"])
    load_module(tower, load_tensors(model.folder / DENSE), TOWER, model.folder)
    return tower.encoder
