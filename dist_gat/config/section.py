"""`Section`: the base of every part of the configuration, and the types that many of their fields have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(gt=0)]


def _no_nul(name: str) -> str:
    if "\0" in name:
        raise ValueError("the name of a file has no NUL byte")
    return name


FileName = Annotated[str, AfterValidator(_no_nul)]
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
