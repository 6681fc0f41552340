"""How texts become vectors."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dist_gat.config.section import FileName, PositiveInt, Section


class TextEncoderConfig(Section):
    """A sentence-transformers model or a Transformers encoder, and how it reads."""

    encoder: FileName = Field(
        description="a model's folder, its name in the Hugging Face hub, or package:NAME/FOLDER of a Python package"
    )
    max_tokens: PositiveInt = Field(128, description="what is read of a text; the model's own limit counts too")
    prompt: str | None = Field(None, description="stands before every text; by default what the model asks for")
    store: Literal["float32", "float16"] = Field("float32", description="numbers of the cache")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU where there is one")


class TextTuningConfig(Section):
    """The encoder of the column of text with `trainable: true` trains with the graph, through low-rank updates of its
    linear layers (LoRA)."""

    rank: PositiveInt = Field(8, description="of the update of each layer")
    alpha: float = Field(16.0, gt=0, description="the updates count alpha / rank times")
    learning_rate: float = Field(0.0001, gt=0, description="of the updates, with the schedule of `train`")
    nodes_per_step: PositiveInt = Field(
        128, description="whose texts a step encodes, over all workers; others have kept vectors"
    )
    refresh_every: PositiveInt = Field(1, description="epochs after which all kept vectors are made anew")
