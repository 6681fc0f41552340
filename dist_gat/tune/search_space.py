"""A search space: dotted keys of the configuration and the distribution that `dist-gat tune` draws each from.

model.embedding_size: {choice: [32, 64, 128]}
model.decoder.temperature: {log_uniform: [0.05, 0.5]}
train.warmup_steps: {integer: [0, 200]}
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from dist_gat.base.errors import ConfigError
from dist_gat.config.files import all_keys, parse_config, set_value
from dist_gat.config.plain_yaml import read_yaml
from dist_gat.config.section import Section
from dist_gat.config.sections import Config

# What is the same in all trials of a search: the data, the place, and what trials are compared by.
FIXED = ("name", "run", "data", "parts", "evaluate", "checkpoint", "launch", "train.metric", "train.validate_every")
MAX_COMBINATIONS = 1000  # tried, to show that a value is possible
EXPECTED = "expected one of choice: [VALUE, …], uniform: [LOW, HIGH], log_uniform: [LOW, HIGH], integer: [LOW, HIGH]"

# integers that a float represents exactly
WholeNumber = Annotated[int, Field(strict=True, ge=-(2**53), le=2**53)]
Bounds = Annotated[list[float], Field(min_length=2, max_length=2)]


class Distribution(Section):
    """Exactly one of these. `uniform` and `log_uniform` are over real numbers, `integer` includes both ends."""

    choice: Annotated[list[Any], Field(min_length=1)] | None = None
    uniform: Bounds | None = None
    log_uniform: Bounds | None = None
    integer: Annotated[list[WholeNumber], Field(min_length=2, max_length=2)] | None = None

    @model_validator(mode="after")
    def _one_that_can_be_drawn_from(self) -> Distribution:
        if len(self.model_fields_set) != 1 or getattr(self, self.kind) is None:
            raise ValueError("not exactly one distribution")
        if self.kind != "choice" and not self.low < self.high:
            raise ValueError(f"{self.kind}: the low end, {self.low}, is not below the high one, {self.high}")
        if self.kind == "log_uniform" and self.low <= 0:
            raise ValueError(f"log_uniform: the low end, {self.low}, is not above 0")
        return self

    @property
    def kind(self) -> Literal["choice", "uniform", "log_uniform", "integer"]:
        (kind,) = self.model_fields_set
        return kind  # type: ignore[return-value]

    @property
    def low(self) -> Any:
        return getattr(self, self.kind)[0]

    @property
    def high(self) -> Any:
        return getattr(self, self.kind)[-1]

    def contains(self, value: Any) -> bool:
        if self.choice is not None:
            return value in self.choice
        return isinstance(value, int if self.kind == "integer" else float) and self.low <= value <= self.high

    def examples(self) -> list[Any]:
        """Every choice, or both ends and a number between them, which is an integer for `integer` alone."""
        if self.choice is not None:
            return self.choice
        inside = self.low + (self.high - self.low) / math.pi
        return [self.low, self.high, math.floor(inside) if self.kind == "integer" else inside]


Space = dict[str, Distribution]


def read_space(path: Path, config: Config) -> Space:
    """Read a search space and check it against the configuration that it varies.

    Raises `ConfigError` for a key that is unknown or can't vary, and for a value that no trial could have.
    """
    tree = read_yaml(path)
    if not isinstance(tree, dict) or not tree:
        raise ConfigError(
            f"{path}: expected a map from dotted keys to distributions, see `dist-gat recipes spaces/default`"
        )
    space = {str(key): _distribution(path, str(key), value) for key, value in tree.items()}
    for key in space:
        _check_key(path, key, space, config)
    for key, distribution in space.items():
        for value in distribution.examples():
            _check_possible(path, key, value, space, config)
    return space


def dump_space(space: Space) -> dict[str, Any]:
    """Plain values, as in the YAML."""
    return {key: distribution.model_dump(exclude_unset=True) for key, distribution in space.items()}


def configure(config: Config, values: dict[str, Any], where: str = "trial") -> dict[str, Any]:
    """The tree of the configuration with the values at their dotted keys; not checked."""
    tree = config.model_dump(mode="json")
    for key, value in values.items():
        set_value(tree, key, value, where)
    return tree


def _distribution(path: Path, key: str, value: Any) -> Distribution:
    try:
        return TypeAdapter(Distribution).validate_python(value)
    except ValidationError as err:
        error = err.errors()[0]
        where = ".".join([key, *map(str, error["loc"])])
        message = error["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{path}: {where}: {message}; {EXPECTED}") from None


def _check_key(path: Path, key: str, space: Space, config: Config) -> None:
    for fixed in FIXED:
        if key == fixed or key.startswith(fixed + "."):
            raise ConfigError(f"{path}: {key}: {fixed} is the same in all trials; set it in the recipe")
    for other in space:
        if other.startswith(key + "."):
            raise ConfigError(f"{path}: {other}: a part of {key}, which varies too; keep one of them")
    if key not in all_keys():
        parse_config(configure(config, {key: None}, where=str(path)), where=str(path))  # says which is nearest


def _check_possible(path: Path, key: str, value: Any, space: Space, config: Config) -> None:
    """Raise `ConfigError` unless the value is valid with some combination of the other keys' values."""
    others = [name for name in space if name != key]
    combinations = itertools.product(*[space[name].examples() for name in others])
    tried = itertools.chain([()], itertools.islice(combinations, MAX_COMBINATIONS))
    first: ConfigError | None = None
    for combination in tried:
        # the first combination is empty, so that the other values are the recipe's
        values = dict(zip(others, combination, strict=False)) | {key: value}
        try:
            parse_config(configure(config, values), where=f"{path}: {key}")
        except ConfigError as err:
            first = first or err
        else:
            return
    assert first is not None
    raise first
