"""Differences between two configurations as plain values, for runs and searches that resume."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic.fields import FieldInfo

from dist_gat.config.files import is_section
from dist_gat.config.section import OnResume, Section
from dist_gat.config.sections import Config

# from dotted key and field: whether this setting, and all below it, may differ
MayDiffer = Callable[[str, FieldInfo], bool]


def differing_settings(
    saved: Mapping[str, Any], now: Mapping[str, Any], may_differ: MayDiffer, root: type[Section] = Config
) -> list[str]:
    """`key: saved VALUE, now VALUE` of every setting that differs, in the order of the configuration.

    Compares whole trees, including mappings and keys that only one of the two has. Where `saved` is older than a
    setting, it counts as having the default.
    """
    return list(_differences(saved, now, _Level(root), "", may_differ))


class _Level(NamedTuple):
    """What a map of values is made of: the fields of a section, or names whose values are all of one section."""

    fields_of: type[Section] | None = None
    values_of: type[Section] | None = None

    def below(self, name: str) -> _Level:
        """The level of the value at a key."""
        if self.fields_of is None:
            return _Level(self.values_of)
        field = self.fields_of.model_fields.get(name)
        annotation: Any = field.annotation if field else None
        arguments = typing.get_args(annotation)
        found = next((kind for kind in (annotation, *arguments) if is_section(kind)), None)
        return _Level(values_of=found) if typing.get_origin(annotation) is dict else _Level(found)


def resume_rule(field: FieldInfo) -> OnResume | None:
    """The field's own rule for a resumed run; None: a change makes another run."""
    return next((rule for rule in field.metadata if isinstance(rule, OnResume)), None)


def default_of(field: FieldInfo | None) -> Any:
    """The default of a setting as a plain value; None where there is none."""
    if field is None or field.is_required():
        return None
    default = field.get_default(call_default_factory=True)
    return default.model_dump(mode="json") if isinstance(default, Section) else default


def _differences(
    saved: Mapping[str, Any], now: Mapping[str, Any], level: _Level, prefix: str, may_differ: MayDiffer
) -> Iterator[str]:
    fields = level.fields_of.model_fields if level.fields_of else {}
    for name in dict.fromkeys([*fields, *now, *saved]):
        key, field = prefix + name, fields.get(name)
        if field is not None and may_differ(key, field):
            continue
        # a tree that was saved before there was this setting has its default
        default = default_of(field) if name in now else None
        before, after = saved.get(name, default), now.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _differences(before, after, level.below(name), f"{key}.", may_differ)
        elif before != after:
            yield f"{key}: saved {before}, now {after}"
