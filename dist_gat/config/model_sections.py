"""The model's part of the configuration: attention layers, decoder, and the recommender of both."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from dist_gat.config.section import PositiveInt, Ratio, Section
from dist_gat.config.text_section import TextTuningConfig


class AttentionConfig(Section):
    """One attention layer. See `dist_gat.nn.attention` for the equations."""

    scoring: Literal["dot", "dot_exp", "additive", "additive_v2", "uniform", "degree", "degree_dot"] = Field(
        "dot", description="degree_dot: dot, from where `degree` is"
    )
    terms: list[Literal["relation", "category", "weight", "age", "rank", "degree"]] = Field(
        [], description="what an edge carries, as learned terms of its logit; all start at 0"
    )
    weight_scale: Literal["linear", "log"] = Field(
        "linear",
        description="log: the term weight is a curve of log(1 + weight), for counts, of which few are large",
    )
    keys: list[Literal["relation", "category"]] = Field(
        [], description="the same as learned vectors, added to a neighbour's row in the logit; they start at 0"
    )
    softmax: Literal["all", "relation"] = Field(
        "all", description="over all edges of a node; or one a relation, whose results a learned gate weighs"
    )
    projection: Literal["none", "relation"] = Field(
        "none", description="a matrix a relation for what it aggregates; it starts as the identity"
    )
    num_heads: PositiveInt = 1
    normalization: Literal["softmax", "linear"] = "softmax"
    transform: Literal["none", "mlp"] = Field("none", description="dot, dot_exp: mlp is LeakyReLU(z W_v) W_o")
    residual: bool = True
    negative_slope: float = 0.2

    @model_validator(mode="after")
    def _fits_together(self) -> AttentionConfig:
        if self.normalization == "linear" and self.scoring != "dot":
            raise ValueError(f"normalization=linear is defined for scoring=dot alone, not for {self.scoring}")
        for name, chosen in (("terms", self.terms), ("keys", self.keys)):
            if len(set(chosen)) < len(chosen):
                raise ValueError(f"{name}={chosen}: expected each once")
            if self.normalization == "linear" and chosen:
                raise ValueError(f"{name} are for the logits of a softmax: leave them out with normalization=linear")
        if self.keys and self.scoring not in ("dot", "dot_exp", "additive", "degree_dot"):
            raise ValueError(
                f"keys={self.keys} are for scorings that compare rows before anything else: dot, dot_exp, additive and "
                f"degree_dot; with {self.scoring} take terms={self.keys}"
            )
        if self.weight_scale == "log" and "weight" not in self.terms:
            raise ValueError("weight_scale=log is of the term weight: name it in terms, or leave weight_scale out")
        if self.transform == "mlp" and self.scoring not in ("dot", "dot_exp"):
            raise ValueError(f"transform=mlp is for scoring=dot and dot_exp, not for {self.scoring}")
        return self


class DecoderConfig(Section):
    """How a user and an item representation become a score."""

    kind: Literal["dot", "cosine"] = "dot"
    temperature: float = Field(1.0, gt=0.0, description="cosine: the score is cos / temperature")
    popularity: bool = Field(False, description="add β log(1 + degree of the item) to the score, with a learned β")


class InputsConfig(Section):
    """How the row of a node's ID and its columns become the row that the first layer reads."""

    fusion: Literal["sum", "gate", "attention"] = Field(
        "sum", description="gate: a sum with learned weights; attention: a mean over what a node has"
    )
    ids: list[str] | None = Field(None, description="node types whose nodes have a learned row each; default: all")
    id_dropout: Ratio = Field(0.0, description="share of nodes that a training step sees without their ID rows")


class AdapterConfig(Section):
    """A few trained parameters on a model that `train.init_from` names, which stays as it is. See
    `dist_gat.nn.adapters`."""

    kind: Literal["low_rank", "bias"] = Field(
        "low_rank", description="low_rank: LoRA; bias: what the model adds, and one vector for all ID rows"
    )
    rank: PositiveInt = Field(8, description="low_rank: of the update of a matrix")
    alpha: float = Field(8.0, gt=0.0, description="low_rank: the update is alpha / rank times a product")
    of: list[Literal["attention", "embeddings"]] = Field(
        ["attention", "embeddings"],
        min_length=1,
        description="low_rank: the matrices of the layers; a projection of the ID rows",
    )
    rows: Literal["frozen", "trained"] = Field(
        "frozen", description="trained: the ID rows train too; then there is a model, and no RUN/adapter"
    )


class ModelConfig(AttentionConfig):
    """The recommender: ID embeddings, attention layers (one per fan-out, alike), combination, decoder."""

    embedding_size: PositiveInt = 64
    init_std: float = Field(0.1, gt=0.0)
    inputs: InputsConfig = InputsConfig()
    text: TextTuningConfig | None = None
    combination: Literal["last", "mean", "concat"] = "mean"
    decoder: DecoderConfig = DecoderConfig()
    adapter: AdapterConfig | None = None
