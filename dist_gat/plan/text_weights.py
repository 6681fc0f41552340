"""The size of a pre-trained encoder of texts, as its files tell it, without any of the libraries that open it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path

from safetensors import safe_open

from dist_gat.base.errors import ConfigError
from dist_gat.text.model_files import find_model
from dist_gat.text.text_tower import UNREAD

# what Transformers encoders call the length of a token's vector
SIZES = ("hidden_size", "dim", "d_model")


@dataclass(frozen=True)
class TextWeights:
    """size: of a vector, None where the files don't say. num_weights: all. ends: inputs and outputs of all linear
    layers that LoRA updates, together."""

    size: int | None
    num_weights: int
    ends: int


def read_text_weights(encoder: str) -> TextWeights:
    """Raises `ConfigError` where the encoder is not on this machine."""
    folder = find_model(encoder)
    files = [] if folder is None else sorted(folder.rglob("*.safetensors"))
    if folder is None or not files:
        raise ConfigError(
            f"encoder={encoder}: a plan reads the shapes of its weights from .safetensors, and none are on this "
            "machine; fetch the model, or say with --column TYPE.NAME=NUMBERS how long its vectors are, without "
            "model.text"
        )
    num_weights = ends = 0
    for file in files:
        with safe_open(file, framework="numpy") as weights:
            for name in weights.keys():  # noqa: SIM118 - not a mapping
                shape = weights.get_slice(name).get_shape()
                num_weights += prod(shape)
                is_linear = len(shape) == 2 and "embed" not in name and UNREAD not in name.split(".")
                ends += sum(shape) if is_linear else 0
    return TextWeights(_size(folder), num_weights, ends)


def _size(folder: Path) -> int | None:
    """That of the tokens, which the mean of tokens or the first of them keeps."""
    for file in sorted(folder.rglob("config.json"), key=lambda path: len(path.parts)):
        settings = json.loads(file.read_text())
        for name in SIZES:
            if isinstance(settings.get(name), int):
                return int(settings[name])
    return None
