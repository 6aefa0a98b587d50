"""Vectors of numbers that go through compiled kernels side by side, an independent problem in each lane.

Where LLVM is left to find out which loop to vectorise, short inner ones are unrolled and outer ones gather
and scatter. Here a kernel says it: `load` and `store` move a vector, arithmetic and the functions below act
lane by lane, and a local variable stays in registers.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.errors import TypingError
from numba.extending import models, overload, register_model

from learnsolve.kernels.pointers import intrinsic

LANES = 16


class Vector(types.Type):
    """`LANES` numbers of a floating type."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(name=f"lanes({dtype})")


@register_model(Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        one = ir.FloatType() if kind.dtype == types.float32 else ir.DoubleType()
        super().__init__(manager, kind, ir.VectorType(one, LANES))


def _place(builder: Any, pointer: Any, index: Any) -> Any:
    place = builder.gep(pointer, [index], inbounds=True)
    return builder.bitcast(place, ir.VectorType(pointer.type.pointee, LANES).as_pointer())


def _bytes(pointer: Any) -> int:
    return int(pointer.dtype.bitwidth // 8)


@intrinsic
def load(typingctx: Any, pointer: Any, index: Any) -> Any:
    """The numbers from ``index >= 0`` on."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_place(builder, *arguments), align=_bytes(signature.args[0]))

    return Vector(pointer.dtype)(pointer, types.intp), build


@intrinsic
def store(typingctx: Any, pointer: Any, index: Any, vector: Any) -> Any:
    """Write numbers from ``index >= 0`` on; every `load` that comes later sees them."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _place(builder, *arguments[:2]), align=_bytes(signature.args[0]))
        return context.get_dummy_value()

    return types.void(pointer, types.intp, vector), build


@intrinsic
def spread(typingctx: Any, number: Any) -> Any:
    """The same number in all lanes."""
    if not isinstance(number, types.Float):
        raise TypingError(f"lanes take floating numbers, not {number}")

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        empty = ir.Constant(ir.VectorType(arguments[0].type, LANES), ir.Undefined)
        one = builder.insert_element(empty, arguments[0], ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(
            one, empty, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        )

    return Vector(number)(number), build


def _of_lanes(build: Callable[..., Any], *, count: int) -> Any:
    """An intrinsic of so many vectors, which gives one."""

    def typed(*vectors: Any) -> Any:
        if not all(isinstance(one, Vector) and one.dtype == vectors[0].dtype for one in vectors):
            raise TypingError(f"vectors of one floating type are accepted, not {vectors}")
        return vectors[0](*vectors), lambda context, builder, signature, given: build(builder, *given)

    if count == 2:
        return intrinsic(lambda typingctx, x, y: typed(x, y))
    return intrinsic(lambda typingctx, x, y, z: typed(x, y, z))


def _zero(x: Any) -> Any:
    return ir.Constant(x.type, [0.0] * LANES)


_sum = _of_lanes(lambda builder, x, y: builder.fadd(x, y), count=2)
_difference = _of_lanes(lambda builder, x, y: builder.fsub(x, y), count=2)
_product = _of_lanes(lambda builder, x, y: builder.fmul(x, y), count=2)
_quotient = _of_lanes(lambda builder, x, y: builder.fdiv(x, y), count=2)
larger = _of_lanes(lambda builder, x, y: builder.select(builder.fcmp_ordered(">", x, y), x, y), count=2)
# ``y`` where ``x`` is positive, and ``z`` where it is not.
where_positive = _of_lanes(
    lambda builder, x, y, z: builder.select(builder.fcmp_ordered(">", x, _zero(x)), y, z), count=3
)
# ``y`` where ``x`` is a number, and ``z`` where it is none.
where_number = _of_lanes(
    lambda builder, x, y, z: builder.select(builder.fcmp_ordered("ord", x, x), y, z), count=3
)


def _operator(function: Any, build: Any) -> None:
    @overload(function, strict=False)
    def both(x: Any, y: Any) -> Any:
        if isinstance(x, Vector) and isinstance(y, Vector):
            return lambda x, y: build(x, y)
        return None


for _function, _build in (
    (operator.add, _sum),
    (operator.sub, _difference),
    (operator.mul, _product),
    (operator.truediv, _quotient),
):
    _operator(_function, _build)


def _llvm(builder: Any, name: str, gives: Any, *takes: Any) -> Any:
    """A function of LLVM's own, named by the vector that it takes last."""
    bits = 32 if isinstance(takes[-1].element, ir.FloatType) else 64
    kind = ir.FunctionType(gives, takes)
    return builder.module.declare_intrinsic(f"llvm.{name}.v{LANES}f{bits}", fnty=kind)


@intrinsic
def root(typingctx: Any, vector: Any) -> Any:
    """Square roots."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.call(_llvm(builder, "sqrt", arguments[0].type, arguments[0].type), arguments)

    return vector(vector), build


@intrinsic
def total(typingctx: Any, vector: Any) -> Any:
    """The sum over all lanes."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x = arguments[0]
        one = x.type.element
        function = _llvm(builder, "vector.reduce.fadd", one, one, x.type)
        return builder.call(function, [ir.Constant(one, -0.0), x], fastmath=("reassoc",))

    return vector.dtype(vector), build
