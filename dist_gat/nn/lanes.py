"""Vectors of eight numbers in numba kernels, where the compiler does not find them by itself.

numba turns loops along a row into vector instructions, but never keeps the sums of several rows in registers across
an outer loop, and that is what a kernel over short rows lives from. A value of type `Lanes` is such a register:

    total = fill(zero)
    for a in rows_to_sum:
        total = fma(load(rows, a, column, width), fill(weight[a]), total)

Arrays have two dimensions and are contiguous, and nothing looks whether (row, column) is inside of them. `width` is
how many lanes are inside: `WIDTH`, as a constant so that asking costs nothing, or less at the end of a row. The
lanes beyond are read as zero and are not written. LLVM splits the vectors where a processor has shorter registers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

WIDTH = 8
INT32, INT64 = ir.IntType(32), ir.IntType(64)
LOG2 = 0.6931471805599453


class Lanes(types.Type):
    """numba's type of eight numbers."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        super().__init__(name=f"Lanes({dtype})")


@register_model(Lanes)
class LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Lanes) -> None:
        super().__init__(manager, kind, vector_of(kind.dtype))


def vector_of(dtype: types.Float) -> ir.VectorType:
    return ir.VectorType(ir.FloatType() if dtype == types.float32 else ir.DoubleType(), WIDTH)


def bits_of(vector: ir.VectorType) -> int:
    return 32 if vector.element == ir.FloatType() else 64


def call(builder: Any, name: str, result: Any, operands: Sequence[Any]) -> Any:
    """Of LLVM's intrinsic `llvm.NAME`."""
    kind = ir.FunctionType(result, [x.type for x in operands])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}"), operands)


def same(vector: ir.VectorType, number: float) -> ir.Constant:
    return ir.Constant(vector, [number] * WIDTH)


def spread(builder: Any, vector: ir.VectorType, number: Any) -> Any:
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), number, INT32(0))
    return builder.shuffle_vector(first, first, same(ir.VectorType(INT32, WIDTH), 0))


def pick(builder: Any, left: Any, right: Any, lanes: Sequence[int]) -> Any:
    """Lanes of two vectors; those of the right one are numbered from WIDTH on."""
    return builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(INT32, len(lanes)), list(lanes)))


def address(context: Any, builder: Any, kind: types.Array, array: Any, row: Any, column: Any) -> Any:
    assert (kind.ndim, kind.layout) == (2, "C"), f"lanes are of contiguous arrays in two dimensions, not of {kind}"
    view = context.make_array(kind)(context, builder, array)
    row_size = cgutils.unpack_tuple(builder, view.shape, 2)[1]
    return builder.gep(view.data, [builder.add(builder.mul(row, row_size), column)])


def by_width(builder: Any, width: Any, whole: Callable[[int], None], some: Callable[[Any], None]) -> None:
    """Code for WIDTH lanes and for half of them, which is all that is left of it where the width is a constant; and
    for any other number, with a mask.
    """
    with builder.if_else(builder.icmp_signed("==", width, INT64(WIDTH))) as (then, otherwise):
        with then:
            whole(WIDTH)
        with (
            otherwise,
            builder.if_else(builder.icmp_signed("==", width, INT64(WIDTH // 2))) as (then_half, otherwise_some),
        ):
            with then_half:
                whole(WIDTH // 2)
            with otherwise_some:
                lanes = ir.VectorType(INT64, WIDTH)
                numbers = ir.Constant(lanes, list(range(WIDTH)))
                some(builder.icmp_signed("<", numbers, spread(builder, lanes, width)))


@intrinsic
def load(typing, array, row, column, width):  # type: ignore[no-untyped-def]
    """Numbers `column` to `column + width - 1` of a row."""
    vector = vector_of(array.dtype)

    def build(context, builder, signature, values):  # type: ignore[no-untyped-def]
        start = address(context, builder, array, *values[:3])
        result = cgutils.alloca_once(builder, vector)

        def whole(count: int) -> None:
            part = builder.load(builder.bitcast(start, ir.VectorType(vector.element, count).as_pointer()), align=4)
            rest = ir.Constant(part.type, [0.0] * count)
            builder.store(pick(builder, part, rest, range(WIDTH)), result)

        def some(mask: Any) -> None:
            name = f"masked.load.v{WIDTH}f{bits_of(vector)}.p0"
            pointer = builder.bitcast(start, vector.as_pointer())
            builder.store(call(builder, name, vector, [pointer, INT32(4), mask, same(vector, 0.0)]), result)

        by_width(builder, values[3], whole, some)
        return builder.load(result)

    return Lanes(array.dtype)(array, types.int64, types.int64, types.int64), build


@intrinsic
def store(typing, array, row, column, width, lanes):  # type: ignore[no-untyped-def]
    """The first `width` lanes become numbers `column` to `column + width - 1` of a row."""
    vector = vector_of(array.dtype)

    def build(context, builder, signature, values):  # type: ignore[no-untyped-def]
        start = address(context, builder, array, *values[:3])

        def whole(count: int) -> None:
            part = pick(builder, values[4], values[4], range(count))
            builder.store(part, builder.bitcast(start, part.type.as_pointer()), align=4)

        def some(mask: Any) -> None:
            name = f"masked.store.v{WIDTH}f{bits_of(vector)}.p0"
            pointer = builder.bitcast(start, vector.as_pointer())
            call(builder, name, ir.VoidType(), [values[4], pointer, INT32(4), mask])

        by_width(builder, values[3], whole, some)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, types.int64, lanes), build


@intrinsic
def prefetch(typing, array, row, column):  # type: ignore[no-untyped-def]
    """Ask for the cache line of a number, without waiting for it."""

    def build(context, builder, signature, values):  # type: ignore[no-untyped-def]
        start = builder.bitcast(address(context, builder, array, *values), ir.IntType(8).as_pointer())
        call(builder, "prefetch.p0", ir.VoidType(), [start, INT32(0), INT32(3), INT32(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), build


@intrinsic
def fill(typing, number):  # type: ignore[no-untyped-def]
    """The same number in every lane."""

    def build(context, builder, signature, values):  # type: ignore[no-untyped-def]
        return spread(builder, vector_of(number), values[0])

    return Lanes(number)(number), build


@intrinsic
def repeat(typing, array, row, column):  # type: ignore[no-untyped-def]
    """One number of an array in every lane."""

    def build(context, builder, signature, values):  # type: ignore[no-untyped-def]
        number = builder.load(address(context, builder, array, *values))
        return spread(builder, vector_of(array.dtype), number)

    return Lanes(array.dtype)(array, types.int64, types.int64), build


@intrinsic
def fma(typing, a, b, c):  # type: ignore[no-untyped-def]
    """a b + c."""

    def build(context, builder, signature, values):  # type: ignore[no-untyped-def]
        vector = vector_of(a.dtype)
        return call(builder, f"fma.v{WIDTH}f{bits_of(vector)}", vector, values)

    return a(a, a, a), build


@intrinsic
def divide(typing, a, b):  # type: ignore[no-untyped-def]
    """a / b."""

    def build(context, builder, signature, values):  # type: ignore[no-untyped-def]
        return builder.fdiv(*values)

    return a(a, a), build


@intrinsic
def choose(typing, a, b, below, otherwise):  # type: ignore[no-untyped-def]
    """`below` where a < b, else, and where one of them is NaN, `otherwise`."""

    def build(context, builder, signature, values):  # type: ignore[no-untyped-def]
        return builder.select(builder.fcmp_ordered("<", *values[:2]), *values[2:])

    return a(a, a, a, a), build


@intrinsic
def totals(typing, a, b, c, d):  # type: ignore[no-untyped-def]
    """The sum of a's lanes in lane 0, of b's, c's and d's in lanes 1 to 3; the rest is of no use."""

    def build(context, builder, signature, values):  # type: ignore[no-untyped-def]
        def halves(left: Any, right: Any, block: int) -> Any:
            """Adds the halves of blocks of lanes, those of the left vector before those of the right one."""
            firsts, seconds = [], []
            for start in range(0, WIDTH, block):
                for source in (0, WIDTH):
                    at = [source + start + i for i in range(block)]
                    firsts += at[: block // 2]
                    seconds += at[block // 2 :]
            return builder.fadd(pick(builder, left, right, firsts), pick(builder, left, right, seconds))

        left, right = halves(values[0], values[1], 4), halves(values[2], values[3], 4)
        # left: a02 a13 b02 b13 | a46 a57 b46 b57
        firsts, seconds = [0, 2, 8, 10, 4, 6, 12, 14], [1, 3, 9, 11, 5, 7, 13, 15]
        sums = builder.fadd(pick(builder, left, right, firsts), pick(builder, left, right, seconds))
        return builder.fadd(sums, pick(builder, sums, sums, [4, 5, 6, 7, 0, 1, 2, 3]))

    return a(a, a, a, a), build


@intrinsic
def exp(typing, lanes):  # type: ignore[no-untyped-def]
    """e^x = 2^k e^r with |r| <= log(2) / 2, for x <= 80; within an ulp.

    Below the lowest normal number, where softmax has nothing to tell, the result stays about that number.
    """
    single = lanes.dtype == types.float32
    mantissa, bias, lowest, num_terms = (23, 127, -87.0, 7) if single else (52, 1023, -708.0, 13)
    # log 2 with few enough bits that its product with k is exact, and the rest
    high = 0.693359375 if single else 0.693147180369123816490
    low = LOG2 - high if single else 1.90821492927058770002e-10

    def build(context, builder, signature, values):  # type: ignore[no-untyped-def]
        vector = vector_of(lanes.dtype)
        size = bits_of(vector)
        integers = ir.VectorType(ir.IntType(size), WIDTH)

        def mul_add(a: Any, b: Any, c: Any) -> Any:
            return call(builder, f"fma.v{WIDTH}f{size}", vector, [a, b, c])

        x = values[0]
        # compared so that NaN stays
        x = builder.select(builder.fcmp_ordered("<", x, same(vector, lowest)), same(vector, lowest), x)
        k = call(builder, f"rint.v{WIDTH}f{size}", vector, [builder.fmul(x, same(vector, 1 / LOG2))])
        r = mul_add(k, same(vector, -low), mul_add(k, same(vector, -high), x))
        power = same(vector, 1 / math.factorial(num_terms))
        for n in reversed(range(num_terms)):
            power = mul_add(power, r, same(vector, 1 / math.factorial(n)))
        # an integer plus 1.5 * 2^mantissa has the integer in its lowest bits
        number = builder.bitcast(builder.fadd(k, same(vector, 1.5 * 2.0**mantissa)), integers)
        exponent = builder.shl(builder.add(number, same(integers, bias)), same(integers, mantissa))
        return builder.fmul(power, builder.bitcast(exponent, vector))

    return lanes(lanes), build


@intrinsic
def lane(typing, lanes, index):  # type: ignore[no-untyped-def]
    """One of the numbers."""

    def build(context, builder, signature, values):  # type: ignore[no-untyped-def]
        return builder.extract_element(*values)

    return lanes.dtype(lanes, types.int64), build
