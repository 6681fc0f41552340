"""What `prepare` reads: the tables, their columns, what is left out of them, and how they are split."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import AliasChoices, Field, field_validator, model_validator

from dist_gat.config.node_sections import (
    ColumnSource,
    FeatureConfig,
    Files,
    NodesConfig,
    columns_of_table,
    columns_of_type,
)
from dist_gat.config.section import FileName, PositiveInt, Ratio, Section, check_names
from dist_gat.config.task_sections import FIRST_RELATION

# names of the first relation, of its ends, and of a folder beside those of relations
# and of what `compare` leaves out beside relations
PRUNING = "pruning"
RESERVED_RELATIONS = (FIRST_RELATION, "user", "item", "features", PRUNING)
RESERVED_TYPES = (FIRST_RELATION, "features")
# ends the name of the way from a relation's sources to its targets
REVERSED = "_reversed"
# names of the standard columns of interactions, and of files beside those of labels
RESERVED_LABELS = ("user_id", "item_id", "weight", "datetime", "time", "row", "prediction")
AUTO = "auto"

Format = Literal["auto", "parquet", "csv", "tsv", "recbole", "lightgcn", "jsonl", "arrow", "sqlite", "postgres"]
Repeated = Literal["auto", "first", "last", "sum", "max", "count", "error"]


class EdgeColumnsConfig(Section):
    """Names of the columns that a row has beside its IDs, where they differ from the standard ones."""

    weight: str | None = Field(AUTO, description="auto: weight or rating, where present; null: left out")
    datetime: str | None = Field(AUTO, description="auto: datetime or timestamp, where present; null: left out")
    labels: dict[str, str] = Field({}, description="more numbers of an interaction, for tasks: a name, and its column")

    @field_validator("weight", "datetime")
    @classmethod
    def _empty_is_none(cls, column: str | None) -> str | None:
        return column or None

    @field_validator("labels")
    @classmethod
    def _plain_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        check_names("a label", labels, RESERVED_LABELS)
        return labels


class ColumnsConfig(EdgeColumnsConfig):
    """Names of the columns of interactions."""

    user_id: str | None = Field(None, description="default: user_id")
    item_id: str | None = Field(None, description="default: item_id")

    @property
    def ids(self) -> tuple[str, str]:
        """Of the sources and the targets."""
        return self.user_id or "user_id", self.item_id or "item_id"


class RelationColumnsConfig(EdgeColumnsConfig):
    """Names of the columns of a relation."""

    source: str | None = Field(
        None, validation_alias=AliasChoices("source", "user_id"), description="default: the type of source, and _id"
    )
    target: str | None = Field(
        None, validation_alias=AliasChoices("target", "item_id"), description="default: the type of target, and _id"
    )
    category: str | None = Field(
        None, description="of edges of several kinds: a behaviour, a relation of a knowledge graph"
    )


class SplitConfig(Section):
    """How interactions are divided into train, valid and test.

    `files` takes the split from `data.train`, `data.valid` and `data.test`; the others divide
    `data.interactions`: `temporal` by time over all rows, `leave_last_out` per user, `random` by a hash of
    the pair, so that the split does not depend on the order of the rows.

    Cold items and users are drawn by a hash of their IDs. All of their interactions are held out: they are test, and
    those of half as many further ones valid. The method divides the others.
    """

    method: Literal["files", "temporal", "leave_last_out", "random"] = "random"
    valid_ratio: Ratio = 0.1
    test_ratio: Ratio = 0.1
    valid_is_part_of_train: bool = Field(
        False, description="files: the valid pairs also stand in the train file, and are taken out of it"
    )
    merge_valid: bool = Field(False, description="train on the valid pairs too: `fit` does so once all is chosen")
    cold_items: Ratio | FileName | None = Field(
        None, description="a share of the items, or a file with an ID a line, that training shall not meet"
    )
    cold_users: Ratio | FileName | None = Field(
        None, description="the same of users, who are left out of the graph and measured as new ones"
    )
    cold_user_history: list[PositiveInt] = Field(
        [1, 5, 10], min_length=1, description="from how many interactions the rest of a cold user is predicted"
    )


class SameAsConfig(Section):
    """Which nodes of a relation are nodes of another type under another name: the entities that are items.

    Without a table those whose IDs are the same.
    """

    type: str = "item"
    table: Files | None = None
    id_column: str = Field("item_id", description="of the table: IDs of the other type")
    alias_column: str = Field("entity_id", description="of the table: the names that the relation has for them")


class NearestConfig(Section):
    """Edges from each node of a type to those whose columns are most similar, see `dist_gat.data.nearest`."""

    columns: list[str] = Field(
        min_length=1, description="of data.nodes, each counts alike: vectors, and the tf-idf of category and categories"
    )
    k: PositiveInt = Field(10, description="neighbours of a node; fewer where fewer have a similarity above 0")
    metric: Literal["cosine"] = "cosine"


class PruneConfig(Section):
    """Which interactions carry no messages because they are doubtful, see `dist_gat.graph.pruning`."""

    share: float = Field(gt=0.0, lt=1.0, description="of a user's interactions, the least like those of similar users")
    min_item_interactions: PositiveInt = Field(
        5, description="of an item with fewer nothing is known, so none of its interactions is doubtful"
    )


class RelationConfig(Section):
    """Edges from a table of its own: what users collected or viewed, their friends, tags and entities of items.

    They are training pairs all of them; a task predicts those of users and items by the name of the relation. Rows of
    users and items that the interactions don't have are left out and counted. With `nearest` there is no table: nodes
    of one type attend to those that are most like them, and the weight of an edge is the similarity.
    """

    table: Files | None = Field(None, validation_alias=AliasChoices("table", "interactions"))
    nearest: NearestConfig | None = Field(None, description="in place of a table: edges from columns of nodes")
    source: str = Field("user", description="type of the nodes that the edges come from: user, item, or a new one")
    target: str = Field("item", description="type of the nodes that they lead to")
    columns: RelationColumnsConfig = RelationColumnsConfig()
    where: dict[str, str] = Field({}, description="rows with these values alone: a column, and its value as text")
    messages: bool = Field(True, description="nodes attend along these edges")
    directed: bool = Field(False, description="the sources attend to the targets, and not the other way round")
    same_as: SameAsConfig | None = Field(None, description="entities that are items")
    format: Format | None = Field(None, description="default: data.format, for another suffix that of the suffix")
    query: str | None = Field(None, description="sqlite, postgres: the SQL that gives the edges")
    separator: str | None = Field(None, description="default: data.separator")
    header: list[str] | None = Field(None, description="names of the columns, if the file has no line with names")
    quote: Literal["auto", "double", "none"] | None = Field(None, description="default: data.quote")
    encoding: str | None = Field(None, description="default: data.encoding")

    @property
    def is_behaviour(self) -> bool:
        """Whether its edges are pairs as interactions are, so that it may name users and items that these lack."""
        return (self.source, self.target) == ("user", "item") and self.has_pairs

    @property
    def has_pairs(self) -> bool:
        """Whether a task can predict its edges: each pair is there once."""
        return self.columns.category is None and self.same_as is None

    @property
    def ids(self) -> tuple[str, str]:
        """The columns of sources and targets."""
        return self.columns.source or f"{self.source}_id", self.columns.target or f"{self.target}_id"

    @field_validator("source", "target")
    @classmethod
    def _plain_types(cls, kind: str) -> str:
        check_names("a node type", [kind], RESERVED_TYPES)
        return kind

    @model_validator(mode="before")
    @classmethod
    def _nearest_is_directed(cls, given: Any) -> Any:
        return {"directed": True, **given} if isinstance(given, dict) and given.get("nearest") else given

    @model_validator(mode="after")
    def _one_origin(self) -> RelationConfig:
        if (self.table is None) == (self.nearest is None):
            raise ValueError("expected either `table` or `nearest`; set one of them")
        if self.nearest is None:
            return self
        of_table = self.model_fields_set - {"table", "nearest", "source", "target", "messages", "directed"}
        if unread := sorted(name for name in of_table if getattr(self, name) != type(self).model_fields[name].default):
            raise ValueError(f"nearest reads no table, so that {', '.join(unread)} would say nothing; leave it out")
        if self.source != self.target or not self.directed:
            raise ValueError(
                "nearest leads from each node of a type to others of it: set source and target to one type, and leave "
                "`directed` out"
            )
        return self

    @model_validator(mode="after")
    def _two_ends(self) -> RelationConfig:
        if self.nearest is None and self.ids[0] == self.ids[1]:
            raise ValueError(
                f"both ends are in the column {self.ids[0]}; name them with columns.source and columns.target"
            )
        if self.same_as is not None and self.same_as.type not in ("user", "item"):
            raise ValueError(f"same_as.type={self.same_as.type}: expected user or item")
        return self


def reached_types(relations: Iterable[RelationConfig]) -> set[str]:
    """The node types that users and items are joined with, by relations or as other names of theirs."""
    joined = [{one.source, one.target, *([one.same_as.type] if one.same_as else [])} for one in relations]
    found, before = {"user", "item"}, 0
    while len(found) > before:
        before = len(found)
        found |= {kind for kinds in joined if kinds & found for kind in kinds}
    return found


class DataConfig(Section):
    """Where the interactions come from. Relative file names are below `path`; absolute ones and `..` are taken as they
    stand, since a recipe is yours.
    """

    path: FileName = "."
    interactions: Files | None = None
    train: Files | None = None
    valid: Files | None = None
    test: Files | None = None
    format: Format = "auto"
    query: str | None = Field(None, description="sqlite, postgres: the SQL that gives the interactions")
    separator: str | None = Field(
        None, description="between fields of text, of one or more characters: ';', '::', '\\t'"
    )
    header: list[str] | None = Field(None, description="names of the columns of files that have no line with names")
    quote: Literal["auto", "double", "none"] = Field(
        "auto", description='whether fields may stand between "; auto: in csv, not in tsv and recbole'
    )
    encoding: str = Field("utf-8", description="of text, as Python names it: latin-1, utf-16, cp1252, gb18030")
    missing: list[str] = Field([], description="IDs that stand for none, as NULL: their rows are left out")
    columns: ColumnsConfig = ColumnsConfig()
    time_unit: Literal["auto", "s", "ms", "us"] = Field("auto", description="of times that are numbers")
    relations: dict[str, RelationConfig] = Field(
        {}, description="more edges, by name: behaviours, friends, tags, knowledge"
    )
    min_weight: float | None = Field(None, description="keep only interactions of at least this weight")
    min_message_weight: float | None = Field(
        None, description="interactions below this weight carry no messages; they are predicted all the same"
    )
    prune: PruneConfig | None = Field(None, description="doubtful interactions carry no messages; default: all do")
    repeated: Repeated = Field(
        "auto", description="of pairs that come again; auto: counts add up, of ratings the last stays, else the first"
    )
    skip_bad_rows: bool = False
    min_user_interactions: int = Field(0, ge=0, description="a user with fewer is left out")
    min_item_interactions: int = Field(0, ge=0, description="an item with fewer is left out")
    k_core: bool = Field(False, description="leave out again, until all users and items have as many")
    max_user_interactions: PositiveInt | None = Field(None, description="a user with more, perhaps a bot, is left out")
    split: SplitConfig = SplitConfig()
    nodes: dict[str, NodesConfig] = Field({}, description="columns of nodes, by their type: user, item, and others")
    user_features: FeatureConfig | None = Field(None, description="in short: numeric columns of users")
    item_features: FeatureConfig | None = Field(None, description="in short: numeric columns of items")
    known_nodes: Literal["met", "all"] = Field(
        "met",
        description="by which nodes columns are scaled, coded and weighed, and which have an ID row beside them: those "
        "that training meets, or all, as a private run needs",
    )
    item_titles: FeatureConfig | None = Field(None, description="one text column that names an item for people")
    vectors: FileName = Field(
        "data/vectors", description="the folder that keeps vectors of texts, as that of `dist-gat encode --cache`"
    )
    prepared: FileName = Field(
        "", description="the folder that `prepare` writes and `train` reads; default: prepared/NAME"
    )
    memory_gb: float | None = Field(None, gt=0, description="that `prepare` may take; default: half of what is free")

    @field_validator("separator")
    @classmethod
    def _tab(cls, separator: str | None) -> str | None:
        if separator == "":
            raise ValueError("a separator has one character or more")
        return {"\\t": "\t", "tab": "\t"}.get(separator or "", separator)

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str) -> str:
        try:
            "".encode(encoding)
        except LookupError as err:
            raise ValueError(f"{err}; expected one of Python, such as utf-8, latin-1 or utf-16") from None
        return encoding

    @field_validator("relations")
    @classmethod
    def _plain_relations(cls, relations: dict[str, RelationConfig]) -> dict[str, RelationConfig]:
        types = {kind for relation in relations.values() for kind in (relation.source, relation.target)}
        check_names("a relation", relations, (*RESERVED_RELATIONS, *sorted(types - {"user", "item"})))
        ways = {f"{name}{REVERSED}": name for name in (FIRST_RELATION, *relations)}
        for name in ways.keys() & relations.keys():
            raise ValueError(f"{name}: so the way of {ways[name]} from its sources to its targets is called; rename it")
        if lost := types - reached_types(relations.values()):
            names = sorted(name for name, one in relations.items() if {one.source, one.target} & lost)
            raise ValueError(
                f"{', '.join(names)}: no relation leads from user or item to {' or '.join(sorted(lost))}, so nobody "
                "would hear of their nodes; correct source and target, or say with same_as which of the nodes are items"
            )
        return relations

    @property
    def node_columns(self) -> dict[str, list[ColumnSource]]:
        """Columns by node type, those of the short forms too; for the types that have any."""
        found = {kind: columns_of_type(kind, nodes) for kind, nodes in self.nodes.items()}
        for kind, feature in (("user", self.user_features), ("item", self.item_features)):
            if feature is not None:
                found[kind] = [*found.get(kind, []), *columns_of_table(feature, f"data.{kind}_features")]
        return {kind: columns for kind, columns in found.items() if columns}

    @property
    def encoders(self) -> list[str]:
        """The pre-trained encoders of all columns of text, each once."""
        columns = [source.config for of_type in self.node_columns.values() for source in of_type]
        return list(dict.fromkeys(column.encoder for column in columns if column.encoder is not None))

    @model_validator(mode="after")
    def _columns_of_known_types(self) -> DataConfig:
        known = reached_types(self.relations.values())
        for kind in self.nodes.keys() - known:
            raise ValueError(f"nodes.{kind}: no relation has nodes of this type; expected {', '.join(sorted(known))}")
        for kind, columns in self.node_columns.items():
            names = ["known", *(column.name for column in columns)]  # the first is our own
            if again := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"nodes.{kind}: two columns are called {again[0]}; rename one of them")
        return self

    @model_validator(mode="after")
    def _nearest_by_known_columns(self) -> DataConfig:
        for name, relation in self.relations.items():
            if relation.nearest is None:
                continue
            kinds = {column.name: column.config.kind for column in self.node_columns.get(relation.source, [])}
            setting, fit = f"relations.{name}.nearest", sorted(n for n, kind in kinds.items() if kind != "numeric")
            for column in relation.nearest.columns:
                if column not in fit:
                    what = "is numeric, which has no direction" if column in kinds else "is none"
                    raise ValueError(
                        f"{setting}.columns: {column} {what}; expected vectors or categories of "
                        f"nodes.{relation.source}: {', '.join(fit) or 'there are none'}"
                    )
            if len(set(relation.nearest.columns)) < len(relation.nearest.columns):
                raise ValueError(f"{setting}.columns: one of them is there twice; leave it out")
        return self

    @model_validator(mode="after")
    def _files_match_split(self) -> DataConfig:
        if self.split.method == "files":
            if self.train is None or self.test is None:
                raise ValueError("data.split.method=files needs data.train and data.test")
        elif self.interactions is None:
            raise ValueError(f"data.split.method={self.split.method} needs data.interactions")
        return self
