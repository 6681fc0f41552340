"""Atomic numbers that nogil numba kernels in several threads share, to take tasks and to wait for each other.

A kernel that several threads run at once takes its tasks from a counter and waits where a task needs another one's
result. Starting threads anew for every such step would cost the time to wake a sleeping core, .1 ms, each time.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

NUMBERS = types.Array(types.int64, 1, "C")
ALIGNMENT = 8


def _pointer(context: Any, builder: Any, array: Any, index: Any) -> Any:
    values = make_array(NUMBERS)(context, builder, array)
    return cgutils.get_item_pointer(context, builder, NUMBERS, values, [index], wraparound=False)


@intrinsic
def take(typing_context: Any, numbers: Any, index: Any) -> Any:
    """numbers[index]++ as one atomic step; returns the number before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        one = ir.Constant(ir.IntType(64), 1)
        return builder.atomic_rmw("add", _pointer(context, builder, *arguments), one, "seq_cst")

    return types.int64(NUMBERS, types.intp), generate


@intrinsic
def publish(typing_context: Any, numbers: Any, index: Any, value: Any) -> Any:
    """numbers[index] = value; a thread that reads it sees all that this thread wrote before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, index, value = arguments
        builder.store_atomic(value, _pointer(context, builder, array, index), "release", ALIGNMENT)
        return context.get_dummy_value()

    return types.void(NUMBERS, types.intp, types.int64), generate


@intrinsic
def _read(typing_context: Any, numbers: Any, index: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_pointer(context, builder, *arguments), "acquire", ALIGNMENT)

    return types.int64(NUMBERS, types.intp), generate


@intrinsic
def _give_way(typing_context: Any) -> Any:
    """Let another thread have this core, if one wants it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), generate


@njit(forceinline=True, error_model="numpy")
def wait_until(numbers, index, least):  # type: ignore[no-untyped-def]
    """Wait for numbers[index] >= least. It holds up its thread: wait only for work that another thread has begun."""
    while _read(numbers, index) < least:
        _give_way()
