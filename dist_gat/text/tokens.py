"""What an encoder that may be trained reads of a text: numbers of tokens, from which all its inputs follow."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from torch import Tensor

from dist_gat.base.errors import ConfigError
from dist_gat.text.text_encoder import TextEncoder

NONE = -1  # behind the tokens of a text
CHUNK = 1 << 14
# inputs of a model beside the tokens, for one text that is not padded
CONSTANTS = {"attention_mask": 1, "token_type_ids": 0}


def token_rows(texts: pl.Series, encoder: TextEncoder) -> np.ndarray:
    """int32 [N, L], L the most tokens of any text: `NONE` behind them, and where there is no text, a null or blanks.

    Raises `ConfigError` for an encoder that can't be trained.
    """
    check_trainable(encoder)
    has_text = texts.str.contains(r"\S").fill_null(False)
    rows, said = has_text.arg_true().to_numpy(), texts.filter(has_text)
    tokens = [ids for part in said.to_frame().iter_slices(CHUNK) for ids in _ids(encoder, part.to_series().to_list())]
    lengths = np.array([len(ids) for ids in tokens], np.int64)
    found = np.full((len(texts), max(1, int(lengths.max(initial=0)))), NONE, np.int32)
    for row, ids in zip(rows, tokens, strict=True):
        found[row, : len(ids)] = ids
    return found


def check_trainable(encoder: TextEncoder) -> None:
    """Raise `ConfigError` for an encoder whose inputs are not tokens alone."""
    if not encoder.reads_tokens:
        raise ConfigError("this encoder reads no plain tokens, so it can't be trained; leave out trainable=true")
    tokens = encoder.tokens(["a text"])
    (ids,) = tokens["input_ids"]
    expected = {name: [[CONSTANTS[name]] * len(ids)] for name in tokens if name in CONSTANTS} | {"input_ids": [ids]}
    if tokens != expected:
        raise ConfigError(
            f"this encoder reads {', '.join(tokens)} of a text, so it can't be trained; expected input_ids and at most "
            f"{' and '.join(CONSTANTS)} as they are without padding; leave out trainable=true"
        )


def inputs_of(tokens_bL: Tensor, names: list[str]) -> dict[str, Tensor]:
    """The inputs of a model by name, int64 [b, L], of tokens of one length, without `NONE`."""
    ids_bL = tokens_bL.long()
    return {name: torch.full_like(ids_bL, CONSTANTS[name]) if name in CONSTANTS else ids_bL for name in names}


def _ids(encoder: TextEncoder, texts: list[str]) -> list[list[int]]:
    return encoder.tokens(texts)["input_ids"]
