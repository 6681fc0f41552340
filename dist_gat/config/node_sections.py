"""What is known of nodes: columns by kind, declared beside their type, and tables keyed by external ID."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from dist_gat.config.section import FileName, PositiveInt, Section, check_names
from dist_gat.config.text_section import TextEncoderConfig

# a file, a folder, a pattern, an address, or several of these
Files = Annotated[FileName | list[FileName], Field(union_mode="left_to_right")]
ColumnKind = Literal["numeric", "category", "categories", "vector", "text"]
ARRAYS = (".npy", ".npz")  # whose rows have numbers instead of IDs
OF_MATRICES: tuple[ColumnKind, ...] = ("categories", "vector")
# the kinds that read a setting; others refuse it
READ_BY: dict[str, tuple[ColumnKind, ...]] = {
    "scale": ("numeric", "vector", "text"),
    "separator": ("categories",),
    "max_length": ("categories",),
    "weights": ("categories",),
    "max_categories": ("category", "categories"),
    "ids": ("categories", "vector"),
    "reduce": ("vector",),
    "encoder": ("text",),
    "max_tokens": ("text",),
    "prompt": ("text",),
    "store": ("text",),
    "trainable": ("text",),
}


class FeatureConfig(Section):
    """A table of numbers, or of titles, of one node type, keyed by external ID."""

    path: Files
    id_column: str
    columns: list[str] = Field(min_length=1)
    standardize: bool = Field(True, description="subtract the mean of training nodes, divide by their deviation")


class NodeColumnConfig(Section):
    """One column of a node type: its kind alone, as in `year: numeric`, or its kind and what else it needs.

    A vector may be a list column of a table, or a matrix in an `.npy` file; sparse matrices of scipy, in `.npz`, are
    categories, the largest values of a row first, or with `reduce` a vector. Row n of a matrix is of the node with the
    ID n, or of the n-th ID of the table `ids`. A text becomes the vector that a pre-trained encoder makes of it.
    """

    kind: ColumnKind
    table: Files | None = Field(None, description="default: that of the node type")
    id_column: str | None = Field(None, description="of the table, or of `ids`; default: that of the node type")
    column: str | None = Field(None, description="its name in the table; default: the same")
    missing: list[str] = Field([], description="of a column of text: values that stand for none, as NULL")
    scale: Literal["standardize", "l2", "none"] = Field(
        "standardize",
        description="of numbers and vectors: by mean and deviation of training nodes; l2: vectors by their norm",
    )
    separator: str = Field(" ", min_length=1, description="categories: between those in a text")
    max_length: PositiveInt = Field(32, description="categories: the first so many of a node are kept")
    max_categories: PositiveInt = Field(
        65536, description="category, categories: the most frequent ones are kept; a node of others is as without"
    )
    weights: Literal["none", "tf_idf"] = Field(
        "none", description="categories: tf_idf: a sum by tf-idf of training nodes, of length 1, in place of the mean"
    )
    ids: Files | None = Field(None, description="of a matrix: a table that has the IDs of its rows, in order")
    reduce: PositiveInt | None = Field(
        None, description="of a sparse matrix: length of the vectors that its tf-idf becomes (truncated SVD)"
    )
    encoder: FileName | None = Field(
        None, description="text: a model's folder, its name in the Hugging Face hub, or package:NAME/FOLDER"
    )
    max_tokens: PositiveInt = Field(128, description="text: what is read of one; the model's own limit counts too")
    prompt: str | None = Field(None, description="text: stands before every one; by default what the model asks for")
    store: Literal["float32", "float16"] = Field("float32", description="text: numbers of the cache `data.vectors`")
    trainable: bool = Field(False, description="text: keep its tokens too, so that `model.text` can train the encoder")

    @model_validator(mode="after")
    def _fits_its_kind(self) -> NodeColumnConfig:
        for name, kinds in READ_BY.items():
            if getattr(self, name) != type(self).model_fields[name].default and self.kind not in kinds:
                raise ValueError(f"{name} is for {' and '.join(kinds)}, and not for {self.kind}; leave it out")
        if self.missing and self.kind == "vector":
            raise ValueError("missing is for columns of text; a vector is missing where its row is, or is null")
        if self.kind == "numeric" and self.scale == "l2":
            raise ValueError("scale=l2 is for vectors; expected standardize or none")
        if self.kind == "text" and self.encoder is None:
            raise ValueError("text needs an encoder; name a model's folder, or its name in the hub")
        return self

    @property
    def text_encoder(self) -> TextEncoderConfig:
        """Of a text."""
        assert self.encoder is not None, "checked by the section"
        return TextEncoderConfig(encoder=self.encoder, max_tokens=self.max_tokens, prompt=self.prompt, store=self.store)


class NodesConfig(Section):
    """What is known of the nodes of one type: a table with their IDs, and columns by kind."""

    table: Files | None = Field(None, description="with a row for each ID; a column may have its own")
    id_column: str | None = Field(None, description="default: the node type, and _id")
    columns: dict[str, NodeColumnConfig] = Field({}, description="by name; null: left out")

    @field_validator("columns", mode="before")
    @classmethod
    def _kind_alone(cls, columns: Any) -> Any:
        if not isinstance(columns, dict):
            return columns
        given = {name: one for name, one in columns.items() if one is not None}
        return {name: {"kind": one} if isinstance(one, str) else one for name, one in given.items()}

    @model_validator(mode="after")
    def _has_tables(self) -> NodesConfig:
        check_names("a column", self.columns)
        for name, column in self.columns.items():
            if column.table is None and self.table is None:
                raise ValueError(f"columns.{name}: there is no table; name one here or beside `columns`")
            if is_matrix(column.table or self.table) and column.kind not in OF_MATRICES:
                raise ValueError(
                    f"columns.{name}: a matrix can't be {column.kind}; expected {' or '.join(OF_MATRICES)}, or a table"
                )
        return self


class ColumnSource(NamedTuple):
    """A column as `prepare` reads it, wherever the recipe declares it.

    setting: its key. keys: of `table`, `id_column` and `column`, for messages.
    """

    name: str
    config: NodeColumnConfig
    files: str | list[str]
    id_column: str
    column: str
    setting: str
    keys: tuple[str, str, str]

    @property
    def is_matrix(self) -> bool:
        return is_matrix(self.files)


def is_matrix(files: str | list[str] | None) -> bool:
    return isinstance(files, str) and files.lower().endswith(ARRAYS)


def columns_of_type(node_type: str, nodes: NodesConfig) -> list[ColumnSource]:
    """The columns of `data.nodes.TYPE`."""
    found, prefix = [], f"data.nodes.{node_type}"
    for name, column in nodes.columns.items():
        own = f"{prefix}.columns.{name}"
        keys = (
            f"{own if column.table is not None else prefix}.table",
            f"{own if column.id_column is not None else prefix}.id_column",
            f"{own}.column",
        )
        files = nodes.table if column.table is None else column.table
        assert files is not None, "checked by the section"
        id_column = column.id_column or nodes.id_column or f"{node_type}_id"
        found.append(ColumnSource(name, column, files, id_column, column.column or name, own, keys))
    return found


def columns_of_table(feature: FeatureConfig, setting: str) -> list[ColumnSource]:
    """The numbers of `data.user_features` and `data.item_features`."""
    column = NodeColumnConfig(kind="numeric", scale="standardize" if feature.standardize else "none")
    keys = (f"{setting}.path", f"{setting}.id_column", f"{setting}.columns")
    return [
        ColumnSource(name, column, feature.path, feature.id_column, name, setting, keys) for name in feature.columns
    ]
