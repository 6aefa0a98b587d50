"""Memory as compiled kernels see it: an address, reads and writes, and nothing else.

numba's own indexing asks of every index whether it counts from the end, counts a reference for every slice,
and lets LLVM suspect that what a loop writes is what it reads. Each keeps long loops from being vectorised.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core.errors import TypingError
from numba.extending import intrinsic as numba_intrinsic

# The decorated functions are called without the typing context, which no type checker can know.
intrinsic: Any = numba_intrinsic


def _reads(builder: Any) -> Any:
    """The alias scope of all reads."""
    module = builder.module
    domain = module.add_metadata(["learnsolve"])
    return module.add_metadata([module.add_metadata(["learnsolve.read", domain])])


@intrinsic
def address(typingctx: Any, array: Any) -> Any:
    """Where a C-contiguous array begins.

    The array must outlive the pointer: take addresses only of a function's arguments. LLVM learns nothing
    about where the pointer came from, so two addresses of one array differ to it. What was written before
    an address is taken is seen by every read after it; for what is written later, see `write`.
    """
    if not isinstance(array, types.Array) or array.layout != "C":
        raise TypingError(f"a kernel takes C-contiguous arrays, not {array}")

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        hide = ir.InlineAsm(ir.FunctionType(data.type, [data.type]), "", "=r,0,~{memory}", side_effect=True)
        return builder.call(hide, [data])

    return types.CPointer(array.dtype)(array), build


@intrinsic
def read(typingctx: Any, pointer: Any, index: Any) -> Any:
    """The value at ``index >= 0``."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.gep(arguments[0], [arguments[1]], inbounds=True)
        if isinstance(signature.return_type, types.Complex):
            return context.unpack_value(builder, signature.return_type, place)
        value = builder.load(place)
        value.set_metadata("alias.scope", _reads(builder))
        return value

    return pointer.dtype(pointer, types.intp), build


@intrinsic
def write(typingctx: Any, pointer: Any, index: Any, value: Any) -> Any:
    """Store a value at ``index >= 0``.

    It is a promise that no `read` depends on it, in whatever order the two are carried out, before the next
    address is taken: not in the same turn of a loop, and not in another. What a loop reads at the very
    place that it writes is read through another address.
    """

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.gep(arguments[0], [arguments[1]], inbounds=True)
        if isinstance(signature.args[2], types.Complex):
            context.pack_value(builder, signature.args[2], arguments[2], place)
        else:
            builder.store(arguments[2], place).set_metadata("noalias", _reads(builder))
        return context.get_dummy_value()

    return types.void(pointer, types.intp, pointer.dtype), build
