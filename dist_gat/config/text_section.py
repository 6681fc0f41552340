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
