"""Recipes as files: YAML and overrides in, a typed configuration or an error in the words of the file out.

Unknown keys are errors that name the nearest valid key.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from dist_gat.base.addresses import below
from dist_gat.base.errors import ConfigError
from dist_gat.config.plain_yaml import dump_yaml, parse_yaml, read_yaml
from dist_gat.config.section import AS_TEXT, Section
from dist_gat.config.sections import Config

MAX_ERRORS = 10  # explained by one message
MAX_SHOWN = 80  # characters of a wrong value in a message


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a recipe and apply dotted overrides such as `model.embedding_size=128`.

    Values of overrides are YAML scalars, lists or maps. Raises `ConfigError` with the key, what was
    expected and, for an unknown key, the nearest valid name.
    """
    tree = read_yaml(Path(path))
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a map of settings at the top level, found {type(tree).__name__}")
    for override in overrides:
        _apply_override(tree, override)
    return parse_config(tree, where=str(path), as_text=True)


def parse_config(tree: dict[str, Any], where: str = "configuration", as_text: bool = False) -> Config:
    """Check a tree of plain values and return the typed configuration.

    as_text: names of files are as people write them, with ~ and variables.
    """
    try:
        return Config.model_validate(tree, context=AS_TEXT if as_text else None)
    except ValidationError as err:
        errors = err.errors()
        more = f"; and {len(errors) - MAX_ERRORS} more" if len(errors) > MAX_ERRORS else ""
        raise ConfigError(f"{where}: " + "; ".join(map(_explain, errors[:MAX_ERRORS])) + more) from None


def dump_config(config: Config) -> str:
    """The configuration as YAML that `load_config` reads back to an equal one."""
    return dump_yaml(config.model_dump(mode="json", context=AS_TEXT))


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override '{override}': expected key=value, for example model.embedding_size=128")
    # the marks between fields mean something in YAML: they are taken as they stand
    is_mark = key.rpartition(".")[2] == "separator" and text and not any(ch.isalnum() or ch in "'\"" for ch in text)
    value = text if is_mark else parse_yaml(text, f"override '{override}': the value")
    set_value(tree, key, value, f"override '{override}'")


def set_value(tree: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set the value at a dotted key. `where` opens the message of the `ConfigError` where a value is in the way."""
    *parents, leaf = key.split(".")
    node = tree
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"{where}: '{parent}' is a value, not a section")
        node = child
    node[leaf] = value


def place_run(tree: dict[str, Any], config: Config, folder: str | Path, below_url: str) -> None:
    """Make `tree` the recipe of a run in a folder of `config`'s run folder, with checkpoints below its URL, if any."""
    tree["run"] = below(config.run or config.run_folder, str(folder))
    if config.checkpoint.url is not None:
        tree["checkpoint"]["url"] = f"{config.checkpoint.url.rstrip('/')}/{below_url}"


def _explain(error: Any) -> str:
    """One line of a pydantic error, in the words of the YAML file."""
    location = [str(part) for part in error["loc"]]
    key = ".".join(location)
    if error["type"] != "extra_forbidden":
        message = error["msg"].removeprefix("Value error, ")
        if error["type"] == "string_type" and error["input"] is None:
            message += "; ~ alone is null in YAML: write ~/ for the home folder"
        got = "" if isinstance(error["input"], dict) or not key else f" (got {repr(error['input'])[:MAX_SHOWN]})"
        return f"{key}: {message}{got}" if key else message
    prefix = ".".join(location[:-1])
    valid = all_keys()
    siblings = [name for name in valid if name.rpartition(".")[0] == prefix]
    nearest = [f"{prefix}.{n}".lstrip(".") for n in _close(location[-1], [s.rpartition(".")[2] for s in siblings])]
    same = [name for name in valid if name.rpartition(".")[2] == location[-1]]
    nearest = nearest or sorted(same, key=lambda name: name.count(".")) or _close(key, valid)
    hint = f"did you mean {nearest[0]}?" if nearest else f"valid here: {', '.join(siblings)}"
    return f"unknown key {key}; {hint}"


def _close(word: str, choices: list[str]) -> list[str]:
    return difflib.get_close_matches(word, choices, n=1, cutoff=0.6)


def all_keys(section: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Every dotted key of the configuration, sections and leaves, in the order of definition."""
    keys: list[str] = []
    for name, field in section.model_fields.items():
        keys.append(prefix + name)
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        for kind in candidates:
            if is_section(kind):
                keys += all_keys(kind, f"{prefix}{name}.{by_name(field.annotation)}")
    # kinds of one section may have fields of the same name
    return list(dict.fromkeys(keys))


def by_name(annotation: object) -> str:
    """What stands for the name before the keys of sections that are in a mapping."""
    return "NAME." if typing.get_origin(annotation) is dict else ""


def is_section(kind: object) -> bool:
    """Whether an annotation is a section. On Python 3.10 `list[int]` counts as a type that issubclass refuses."""
    return typing.get_origin(kind) is None and isinstance(kind, type) and issubclass(kind, Section)
