"""The YAML of recipes: plain values alone. Tags, aliases and repeated keys are refused, so that a file means what it
seems to say and its size bounds its values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from dist_gat.base.errors import ConfigError

MAX_BYTES = 1 << 20  # of a recipe


def read_yaml(path: Path) -> Any:
    """The plain values of a recipe. Raises `ConfigError`."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: {path.stat().st_size:,} bytes; a recipe has at most {MAX_BYTES:,}")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file; `dist-gat recipes` lists some to copy") from None
    except UnicodeDecodeError as err:
        raise ConfigError(f"{path}: not valid YAML: expected text in UTF-8: {err}") from None
    except OSError as err:
        raise ConfigError(
            f"{path}: can't be read: {err}; expected a recipe; `dist-gat recipes` lists some to copy"
        ) from None
    return parse_yaml(text, f"{path}: the file")


def parse_yaml(text: str, where: str) -> Any:
    """The plain values of YAML text. `where` opens the message of the `ConfigError` for anything else."""
    try:
        return _PlainLoader(text).get_single_data()
    except RecursionError:
        raise ConfigError(f"{where} is not valid YAML: nested too deeply; a recipe has a few levels") from None
    # the constructors of numbers and dates raise errors of their own
    except (yaml.YAMLError, ValueError, ArithmeticError) as err:
        raise ConfigError(f"{where} is not valid YAML: {err}") from None


def dump_yaml(value: Any) -> str:
    """Plain values as YAML, maps in their own order."""
    return yaml.dump(value, Dumper=_PlainDumper, sort_keys=False)


class _PlainLoader(yaml.SafeLoader):
    """The safe loader without what a recipe doesn't need."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"line {line}: alias *{event.anchor}; write the value again")
        if event.tag not in (None, "!"):
            raise yaml.YAMLError(f"line {line}: tag {event.tag}; a recipe has plain values")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: the key '{key.value}' again; keep one of them")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _PlainDumper(yaml.SafeDumper):
    """The safe dumper without anchors for equal objects, which the loader refuses."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
