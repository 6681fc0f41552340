"""`open_encoder`: the encoder of a saved model's column of text, as training left it."""

from __future__ import annotations

from dist_gat.checkpoints.weight_files import DENSE, load_module, load_tensors
from dist_gat.config.text_section import TextEncoderConfig
from dist_gat.data.column_layout import trainable_text
from dist_gat.serve.saved_model import SavedModel
from dist_gat.text.model_files import find_model
from dist_gat.text.text_encoder import TextEncoder
from dist_gat.text.text_tower import open_tower

TOWER = "text.tower."  # begins the names of what was trained


def open_encoder(model: SavedModel, node_type: str, column: str, config: TextEncoderConfig) -> TextEncoder:
    """Raises `ConfigError` where it can't be opened, or was trained and its files have changed since, `StorageError`
    for a damaged model."""
    tuning, trained = model.config.model.text, trainable_text(model.layouts)
    if tuning is None or trained is None or (trained.node_type, trained.vector.name) != (node_type, column):
        return TextEncoder(find_model(config.encoder) or config.encoder, config)
    tower = open_tower(config, tuning, model.manifest["text"]["fingerprint"])
    load_module(tower, load_tensors(model.folder / DENSE), TOWER, model.folder)
    return tower.encoder
