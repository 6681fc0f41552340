"""Writes docs/configuration.md from the typed configuration: `python docs/configuration.py`. A test compares them."""

from __future__ import annotations

import inspect
import json
import types
import typing
from pathlib import Path

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from dist_gat.config.files import by_name, is_section
from dist_gat.config.sections import Config

HEADER = """# Every setting

Written by `python docs/configuration.py` from the sections in `dist_gat/config`. A recipe is one YAML file with these
keys; on the command line they follow as dotted overrides, `model.num_heads=4`. An unknown key is an error that names
the nearest.
"""


def configuration_page() -> str:
    """The page as Markdown."""
    return HEADER + "".join(_section(kind, prefix) for prefix, kind in sections(Config))


def sections(root: type[BaseModel], prefix: str = "") -> list[tuple[str, type[BaseModel]]]:
    """(dotted prefix, model) of the root and of every section below it."""
    found = [(prefix, root)]
    for name, field in root.model_fields.items():
        for kind in _kinds(field.annotation):
            if is_section(kind):
                found += sections(kind, f"{prefix}{name}.{by_name(field.annotation)}")
    return found


def _section(kind: type[BaseModel], prefix: str) -> str:
    rows = [
        f"| `{prefix}{name}` | {_type(field.annotation)} | {_default(field.default)} | {field.description or ''} |"
        for name, field in kind.model_fields.items()
        if not any(is_section(k) for k in _kinds(field.annotation))
    ]
    title = f"`{prefix.rstrip('.')}`" if prefix else "The recipe"
    table = "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows])
    return f"\n## {title}\n\n{inspect.getdoc(kind)}\n\n{table}\n"


def _kinds(annotation: object) -> tuple[object, ...]:
    return typing.get_args(annotation) or (annotation,)


def _type(annotation: object) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if a is type(None) else _type(a) for a in arguments)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin is list:
        return f"list of {_type(arguments[0])}"
    return getattr(annotation, "__name__", str(annotation))


def _default(value: object) -> str:
    return "required" if value is PydanticUndefined else f"`{json.dumps(value)}`"


if __name__ == "__main__":
    (Path(__file__).parent / "configuration.md").write_text(configuration_page(), encoding="utf-8")
