"""`Section`: the base of every part of the configuration, and the types that many of their fields have."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializationInfo,
    ValidationInfo,
)

PositiveInt = Annotated[int, Field(gt=0)]


# the context of reading and writing recipes as text, where names of files may have ~ and variables
AS_TEXT = {"as_text": True}


def expand(name: str) -> str:
    """The name of a file with `~` at its start, $NAME and ${NAME} replaced; $$ stands for a dollar sign.

    Raises `ValueError` for a variable that is not set, and for a home that nobody knows.
    """

    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        variable = found[1] or found[2]
        if variable not in os.environ:
            raise ValueError(f"the environment variable {variable} is not set; set it, or write $$ for a dollar sign")
        return os.environ[variable]

    expanded = re.sub(r"\$\$|\$(\w+)|\$\{(\w+)\}", value, name)
    if not name.startswith("~"):
        return expanded
    at_home = os.path.expanduser(expanded)
    if at_home == expanded:
        raise ValueError(f"no home is known for {name.partition('/')[0]}; write ./~ for a name that begins so")
    return at_home


def _file_name(name: str, info: ValidationInfo) -> str:
    if "\0" in name:
        raise ValueError("the name of a file has no NUL byte")
    return expand(name) if info.context == AS_TEXT else name


def _unexpanded(name: str, info: SerializationInfo) -> str:
    """What `expand` makes `name` of."""
    if info.context != AS_TEXT:
        return name
    return ("./" if name.startswith("~") else "") + name.replace("$", "$$")


FileName = Annotated[str, AfterValidator(_file_name), PlainSerializer(_unexpanded)]
Ratio = Annotated[float, Field(ge=0.0, lt=1.0)]


def check_names(what: str, names: Iterable[str], reserved: Sequence[str] = ()) -> None:
    """Raise `ValueError` where a name, which is also that of a file or a column, has other than plain characters."""
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_]*", name) or name in reserved:
            none_of = f", and is none of {', '.join(reserved)}" if reserved else ""
            raise ValueError(f"{name!r} can't name {what}: a name has letters, digits and '_'{none_of}")


class OnResume(Enum):
    """Stands in the annotation of a setting that a resumed run may change; see `dist_gat.config.differences`."""

    FREE = "it does not change the numbers of the steps to come"
    LENGTH = "it moves the end of the run, and with it every decaying learning rate"


FREE, LENGTH = OnResume.FREE, OnResume.LENGTH


class Section(BaseModel):
    """Base of every section: immutable, and strict about the names of its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
