"""The columns of nodes that a recipe declares, before `prepare` has read any.

Numbers and lists of categories are as wide as the recipe says; how long a vector is, and how many categories a table
has, stands in the data alone. Categories are counted as many as the recipe keeps, unless a plan is told better.
"""

from __future__ import annotations

from collections.abc import Mapping

from dist_gat.base.errors import ConfigError
from dist_gat.config.data_sections import DataConfig
from dist_gat.config.node_sections import ColumnSource
from dist_gat.data.column_layout import KNOWN, TOKENS, WEIGHTS, Column, Layout, laid_out
from dist_gat.plan.text_weights import read_text_weights

CATEGORIES = ("category", "categories")


def planned_layouts(data: DataConfig, sizes: Mapping[str, int]) -> dict[str, Layout]:
    """By node type, in the order of `read_node_columns`. sizes: by `TYPE.COLUMN`, categories or the length of vectors.

    Raises `ConfigError` for a size of no column, and where the length of a vector is missing.
    """
    columns = {f"{kind}.{one.name}": one for kind, several in data.node_columns.items() for one in several}
    if unknown := [name for name in sizes if name not in columns or columns[name].config.kind == "numeric"]:
        fit = [name for name, one in columns.items() if one.config.kind != "numeric"]
        raise ConfigError(f"column {unknown[0]}: expected one of the recipe's, {', '.join(fit) or 'which has none'}")
    layouts = {}
    for kind, several in data.node_columns.items():
        numeric = [one for one in several if one.config.kind == "numeric"]
        ordered = [*numeric, *(one for one in several if one.config.kind != "numeric")]
        found = [Column(KNOWN, KNOWN, 1, 0)]
        for one in ordered:
            found += _planned(one, f"{kind}.{one.name}", sizes)
        tokens = [one for one in several if one.config.trainable]
        found += [Column(f"{one.name}.{TOKENS}", TOKENS, one.config.max_tokens, 0) for one in tokens]
        layouts[kind] = laid_out(found)
    return layouts


def _planned(source: ColumnSource, name: str, sizes: Mapping[str, int]) -> list[Column]:
    """A column, and its weights where it has some."""
    config = source.config
    if config.kind == "numeric":
        return [Column(source.name, config.kind, 1, 0)]
    if config.kind not in CATEGORIES:
        return [Column(source.name, config.kind, _length(source, name, sizes), 0)]
    width = config.max_length if config.kind == "categories" else 1
    number = min(sizes.get(name, config.max_categories), config.max_categories)
    found = [Column(source.name, config.kind, width, 0, num_categories=number)]
    if config.weights != "none":
        found.append(Column(f"{source.name}.{WEIGHTS}", WEIGHTS, width, 0))
    return found


def _length(source: ColumnSource, name: str, sizes: Mapping[str, int]) -> int:
    """Of the vectors of a column."""
    length = sizes.get(name, source.config.reduce)
    if length is None and source.config.encoder is not None:
        length = read_text_weights(source.config.encoder).size
    if length is None:
        raise ConfigError(f"{source.setting}: how long its vectors are is missing; say --column {name}=NUMBERS")
    return length
