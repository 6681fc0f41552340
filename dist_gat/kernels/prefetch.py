"""`prefetch`: ask the processor for a cache line that a numba kernel will read soon.

Rows of neighbours, of embeddings and of hash tables lie all over memory, and the next ones are known long before they
are read; asked for in time, their misses overlap with arithmetic instead of being waited for one after another.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

BYTES_PER_LINE = 64
READ, KEEP_IN_ALL_CACHES, DATA = 0, 3, 1  # the arguments of LLVM's llvm.prefetch


@intrinsic
def prefetch(typing_context: Any, array: Any, row: Any, column: Any) -> Any:
    """Prefetch the line of array[row, column], of a matrix. Never faults, and changes nothing but the caches."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_type = signature.args[0]
        values = make_array(array_type)(context, builder, arguments[0])
        pointer = cgutils.get_item_pointer(context, builder, array_type, values, list(arguments[1:]), wraparound=False)
        address = builder.bitcast(pointer, cgutils.voidptr_t)
        kind = ir.FunctionType(ir.VoidType(), [address.type, *[ir.IntType(32)] * 3])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [address, *(ir.IntType(32)(x) for x in (READ, KEEP_IN_ALL_CACHES, DATA))])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), generate


@njit(forceinline=True, error_model="numpy")
def prefetch_row(rows, row):  # type: ignore[no-untyped-def]
    """Prefetch all lines of one row of a matrix."""
    for i in range(0, rows.shape[1], BYTES_PER_LINE // rows.itemsize):
        prefetch(rows, row, i)
