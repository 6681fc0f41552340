"""`Movable`: dataclasses of tensors that go to a device as one."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, TypeVar

import torch

Self = TypeVar("Self", bound="Movable")


class Movable:
    """A dataclass whose fields may be tensors, movable values, and lists, tuples and mappings of them."""

    def to(self: Self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """A copy whose tensors are on a device; DGL's DataLoader calls this."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return replace(self, **_moved(values, device, non_blocking))  # type: ignore[type-var]


def _moved(value: Any, device: torch.device | str, non_blocking: bool) -> Any:
    if isinstance(value, dict):
        return {key: _moved(item, device, non_blocking) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_moved(item, device, non_blocking) for item in value)
    return value.to(device, non_blocking=non_blocking) if hasattr(value, "to") else value
