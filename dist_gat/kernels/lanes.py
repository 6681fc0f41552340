"""`Lanes`: a few numbers that a numba kernel holds in registers and computes with at once.

How fast a compiler makes a loop over the numbers of a row depends on what it can prove about the arrays: that they
don't overlap, and how long they are. Lanes state this. Inside a kernel they have + - * / with each other and with a
number, each rounded as usual, and the functions of this file; their number is a part of their type, given by
`known(number)`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from math import inf
from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import njit, types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable
from numba.np.arrayobj import make_array

from dist_gat.kernels.prefetch import BYTES_PER_LINE, prefetch

# a product and a sum with this flag may become one instruction
CONTRACT = ("contract",)
# For exp: log2(e); ln(2) in two parts, the first short enough that its products with k are exact; the arguments beyond
# which exp is 0 or infinity.
LOG2_E = 1.4426950408889634
LN_2 = {
    types.float32: (0.693145751953125, 1.428606820309417e-06),
    types.float64: (0.693147180369123816, 1.90821492927058770e-10),
}
LOWEST = {types.float32: -87.0, types.float64: -708.0}
HIGHEST = {types.float32: 88.0, types.float64: 709.0}
NUM_TERMS = {types.float32: 8, types.float64: 14}
# Bytes of a row handled at a time. Four sums of 256 bytes fill half of the registers of AVX-512; elsewhere they would
# not fit, and sums in memory are several times as slow.
BYTES_AT_ONCE = 256 if get_host_cpu_features().get("avx512f") else 64


def width_of(size: int, itemsize: int) -> int:
    """The number of lanes for rows of `size` numbers: its largest divisor that fits BYTES_AT_ONCE."""
    return max(width for width in range(1, BYTES_AT_ONCE // itemsize + 1) if size % width == 0)


def known(number: int) -> tuple[int, ...]:
    """A number that a kernel is compiled for: the length of the tuple."""
    return (0,) * number


class Lanes(types.Type):
    """`width` numbers of type `dtype`."""

    def __init__(self, dtype: Any, width: int) -> None:
        self.dtype, self.width = dtype, width
        super().__init__(name=f"Lanes({dtype}, {width})")


@register_model(Lanes)
class LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        number = manager[lanes.dtype].get_value_type()
        super().__init__(manager, lanes, ir.VectorType(number, lanes.width))


def spread(builder: Any, number: Any, width: int) -> Any:
    """The LLVM value of `width` lanes, all of which are `number`."""
    lanes = ir.VectorType(number.type, width)
    first = builder.insert_element(ir.Constant(lanes, ir.Undefined), number, ir.IntType(32)(0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width))


def constant(lanes: Any, number: float) -> Any:
    """The LLVM constant of an LLVM vector type, all of whose lanes are `number`."""
    return ir.Constant(lanes, [ir.Constant(lanes.element, number)] * lanes.count)


def call(builder: Any, name: str, result: Any, *arguments: Any, flags: tuple[str, ...] = ()) -> Any:
    """Call a function of LLVM."""
    kind = ir.FunctionType(result, [x.type for x in arguments])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, arguments, fastmath=flags)


def name_of(lanes: Any) -> str:
    """How LLVM's functions name an LLVM vector type."""
    kinds = {"float": "f32", "double": "f64", "i32": "i32", "i64": "i64"}
    return f"v{lanes.count}{kinds[str(lanes.element)]}"


def _is_matrix(array: Any) -> bool:
    return isinstance(array, types.Array) and (array.ndim, array.layout) == (2, "C") and array.dtype in LN_2


def pointer_to(context: Any, builder: Any, array_type: Any, array_row_column: Any, lanes: Any) -> Any:
    array, *place = array_row_column
    values = make_array(array_type)(context, builder, array)
    pointer = cgutils.get_item_pointer(context, builder, array_type, values, place, wraparound=False)
    return builder.bitcast(pointer, lanes.as_pointer())


@njit(forceinline=True, error_model="numpy")
def prefetch_lanes(rows, row, column, width):  # type: ignore[no-untyped-def]
    """Prefetch the cache lines that `load` will read."""
    for i in range(column, column + len(width), BYTES_PER_LINE // rows.itemsize):
        prefetch(rows, row, i)


def require(is_so: bool, message: str) -> None:
    if not is_so:
        raise TypingError(message)


@intrinsic
def load(typing_context: Any, array: Any, row: Any, column: Any, width: Any) -> Any:
    """array[row, column : column + width] of a C-contiguous array, without checking bounds."""
    require(_is_matrix(array), "lanes are loaded from C-contiguous matrices of floating-point numbers")
    result = Lanes(array.dtype, len(width))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = context.get_value_type(result)
        pointer = pointer_to(context, builder, array, arguments[:3], lanes)
        return builder.load(pointer, align=array.dtype.bitwidth // 8)

    return result(array, types.intp, types.intp, width), generate


@intrinsic
def store(typing_context: Any, array: Any, row: Any, column: Any, lanes: Any) -> Any:
    """array[row, column : column + width] = lanes, without checking bounds."""
    is_theirs = _is_matrix(array) and isinstance(lanes, Lanes) and lanes.dtype == array.dtype
    require(is_theirs, "lanes are stored in C-contiguous matrices of their own type")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = pointer_to(context, builder, array, arguments[:3], arguments[3].type)
        builder.store(arguments[3], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, lanes), generate


@intrinsic
def fill(typing_context: Any, number: Any, width: Any) -> Any:
    """Lanes all of which are `number`."""
    require(isinstance(number, types.Float), "lanes are filled with a floating-point number")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return spread(builder, arguments[0], len(width))

    return Lanes(number, len(width))(number, width), generate


@intrinsic
def fma(typing_context: Any, x: Any, y: Any, z: Any) -> Any:
    """x y + z, in one instruction where the processor has it; y may be a number."""
    require(
        isinstance(x, Lanes) and y in (x, x.dtype) and z == x, "x, y and z are lanes of one type; y may be a number"
    )

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, right, addend = arguments
        if not isinstance(y, Lanes):
            right = spread(builder, right, x.width)
        return builder.fadd(builder.fmul(left, right, flags=CONTRACT), addend, flags=CONTRACT)

    return x(x, y, z), generate


@intrinsic
def total(typing_context: Any, lanes: Any) -> Any:
    """The sum of the lanes, in an order that depends on the processor."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return reduced(builder, *arguments)

    return lanes.dtype(lanes), generate


@intrinsic
def halved(typing_context: Any, lanes: Any) -> Any:
    """The sum of the lanes, a power of two: one half is added to the other until one number is left, on every
    processor."""
    require(isinstance(lanes, Lanes) and lanes.width & (lanes.width - 1) == 0, "the number of lanes is a power of two")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (x,) = arguments
        while (half := x.type.count // 2) > 0:
            places = ir.VectorType(ir.IntType(32), half)
            halves = [ir.Constant(places, list(range(first, first + half))) for first in (0, half)]
            x = builder.fadd(*(builder.shuffle_vector(x, x, one) for one in halves))
        return builder.extract_element(x, ir.IntType(32)(0))

    return lanes.dtype(lanes), generate


@intrinsic
def dot(typing_context: Any, x: Any, y: Any) -> Any:
    """The sum of the products of lanes, in an order that depends on the processor."""
    require(isinstance(x, Lanes) and x == y, "both are lanes of one type")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return reduced(builder, builder.fmul(*arguments, flags=CONTRACT))

    return x.dtype(x, y), generate


def reduced(builder: Any, lanes: Any) -> Any:
    """The LLVM value of the sum of lanes."""
    number, name = lanes.type.element, f"llvm.vector.reduce.fadd.{name_of(lanes.type)}"
    return call(builder, name, number, ir.Constant(number, 0.0), lanes, flags=("reassoc", *CONTRACT))


@intrinsic
def choose(typing_context: Any, x: Any, y: Any, if_greater: Any, otherwise: Any) -> Any:
    """if_greater where x > y, otherwise where it is not or one of them is NaN."""
    require(isinstance(x, Lanes) and x == y == if_greater == otherwise, "all four are lanes of one type")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *arguments[:2]), *arguments[2:])

    return otherwise(x, y, if_greater, otherwise), generate


@intrinsic
def exp(typing_context: Any, lanes: Any) -> Any:
    """e^x to about a unit in the last place; 0 for x below -87 (-708), infinity above 88 (709), NaN of NaN.

    e^x = 2^k e^r with whole k and |r| <= ln(2) / 2, and the Taylor polynomial of e^r.
    """
    high, low = LN_2[lanes.dtype]
    num_terms, lowest, highest = NUM_TERMS[lanes.dtype], LOWEST[lanes.dtype], HIGHEST[lanes.dtype]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (x,) = arguments
        kind, name = x.type, name_of(x.type)

        def product(a: Any, b: Any) -> Any:
            return builder.fmul(a, b, flags=CONTRACT)

        k = call(builder, f"llvm.rint.{name}", kind, builder.fmul(x, constant(kind, LOG2_E)))
        r = builder.fsub(x, product(k, constant(kind, high)), flags=CONTRACT)
        r = builder.fsub(r, product(k, constant(kind, low)), flags=CONTRACT)
        power, factors = constant(kind, 0.0), np.cumprod([1.0, *range(1, num_terms)])
        for factor in reversed(factors):
            power = builder.fadd(product(power, r), constant(kind, 1 / factor), flags=CONTRACT)
        mantissa, bias = (23, 127) if lanes.dtype == types.float32 else (52, 1023)
        whole = ir.VectorType(ir.IntType(lanes.dtype.bitwidth), lanes.width)
        # NaN becomes 0; a plain conversion of it is undefined
        exponent = call(builder, f"llvm.fptosi.sat.{name_of(whole)}.{name}", whole, k)
        bits = builder.shl(builder.add(exponent, constant(whole, bias)), constant(whole, mantissa))
        result = builder.fmul(power, builder.bitcast(bits, kind))
        result = builder.select(builder.fcmp_ordered(">", x, constant(kind, highest)), constant(kind, inf), result)
        return builder.select(builder.fcmp_ordered("<", x, constant(kind, lowest)), constant(kind, 0.0), result)

    return lanes(lanes), generate


@intrinsic
def sqrt(typing_context: Any, lanes: Any) -> Any:
    """The square roots, rounded correctly."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (x,) = arguments
        return call(builder, f"llvm.sqrt.{name_of(x.type)}", x.type, x)

    return lanes(lanes), generate


def define(symbol: Callable[[Any, Any], Any], instruction: str) -> None:
    """An operator between lanes, and between lanes and a number."""

    @type_callable(symbol)
    def typer_of(context: Any) -> Callable[[Any, Any], Any]:
        def typer(left: Any, right: Any) -> Any:
            if isinstance(left, Lanes) and right in (left, left.dtype):
                return left
            return None

        return typer

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, right = arguments
        if not isinstance(signature.args[1], Lanes):
            right = spread(builder, right, signature.args[0].width)
        return getattr(builder, instruction)(left, right)

    for other in (Lanes, types.Float):
        lower_builtin(symbol, Lanes, other)(generate)


for symbol, instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    define(symbol, instruction)
