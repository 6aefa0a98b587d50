"""Compile every Triton kernel of the package for a GPU that need not be there.

``python -m learnsolve.kernels.ahead_of_time`` prints a table of what it made.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from learnsolve.kernels import grid_triton, rows_triton, sparse_triton

_INTEGERS = {
    "colour",
    "nz",
    "ny",
    "nx",
    "cz",
    "cy",
    "cx",
    "count",
    "width",
    "b_stride",
    "x_stride",
    "k",
    "steps",
    "first",
}
_HEIGHT = {"relax": 2, "relax_fresh": 2, "restrict": 1}
_GRID: list[tuple[str, Any, dict[str, int]]] = [
    ("apply", grid_triton.point_kernel, {"MODE": 0}),
    ("residual", grid_triton.point_kernel, {"MODE": 1}),
    ("jacobi", grid_triton.point_kernel, {"MODE": 2}),
    ("relax", grid_triton.relax_kernel, {"FRESH": False}),
    ("relax_fresh", grid_triton.relax_kernel, {"FRESH": True}),
    ("prolong", grid_triton.prolong_kernel, {"FZ": 2, "FY": 2, "FX": 2}),
    ("restrict", grid_triton.restrict_kernel, {"FZ": 2, "FY": 2, "FX": 2}),
]
_SPARSE: list[tuple[str, Any, dict[str, int]]] = [
    ("spmv", sparse_triton.rows_kernel, {"MODE": 0}),
    ("residual", sparse_triton.rows_kernel, {"MODE": 1}),
    ("relax_rows", sparse_triton.rows_kernel, {"MODE": 2}),
    ("spmm", sparse_triton.columns_kernel, {"MODE": 0}),
    ("residual_columns", sparse_triton.columns_kernel, {"MODE": 1}),
    ("sampled_product", sparse_triton.sampled_kernel, {}),
]


def variants() -> Iterator[tuple[str, Any, dict[str, str], dict[str, int]]]:
    """List what there is to compile.

    Yields
    ------
    name, kernel, signature, constants
        The signature says the type of every argument that is no compile-time constant.

    Examples
    --------
    >>> next(name for name, *_ in variants())
    'grid.apply.unit.fp32'
    """
    for real in ("fp32", "fp64"):
        for face in (False, True):
            for name, kernel, constants in _GRID:
                first = {} if face else {"s0": "*u8"}
                tile = {**constants, "FACE": face, "ROWS": _HEIGHT.get(name, 4), "LANES": 128}
                full = f"grid.{name}.{'face' if face else 'unit'}.{real}"
                yield full, kernel, _signature(kernel, tile, real, first), tile
        for index in ("i32", "i64"):
            for name, kernel, constants in _SPARSE:
                tile = {**constants, "ROWS": 64, "WIDTH": 8}
                types = {"indptr": f"*{index}", "indices": f"*{index}", "rows": f"*{index}"}
                yield f"sparse.{name}.{index}.{real}", kernel, _signature(kernel, tile, real, types), tile
        rows = {"indptr": "*i64", "indices": "*i32"}
        for loss in (0, 1, 2):
            sums = {"WEIGHTED": loss > 0, "LOSS": loss, "K": 16}
            yield (
                f"rows.normal.{loss}.{real}",
                rows_triton.normal_kernel,
                _signature(rows_triton.normal_kernel, sums, real, rows),
                sums,
            )
            steps = {**sums, "DAMPED": loss > 0, "TILE": 8}
            yield (
                f"rows.cg.{loss}.{real}",
                rows_triton.cg_kernel,
                _signature(rows_triton.cg_kernel, steps, real, rows),
                steps,
            )


def _signature(kernel: Any, constants: dict[str, int], real: str, types: dict[str, str]) -> dict[str, str]:
    signature = {}
    for argument in kernel.arg_names:
        if argument in constants:
            signature[argument] = "constexpr"
        elif argument in _INTEGERS:
            signature[argument] = "i32"
        else:
            signature[argument] = types.get(argument, "fp64" if argument == "omega" else f"*{real}")
    return signature


def compile_all(arch: int = 90) -> dict[str, bytes]:
    """Compile every kernel, for every stencil, index and number type.

    Parameters
    ----------
    arch : int
        Compute capability times ten: 90 for Hopper.

    Returns
    -------
    dict from name to bytes
        The binaries, as for `cuModuleLoadData`.

    Raises
    ------
    RuntimeError
        Under Triton's interpreter, which replaces the compiler.

    Examples
    --------
    >>> sorted(compile_all())[0]  # doctest: +SKIP
    'grid.apply.face.fp32'
    """
    if not hasattr(grid_triton.point_kernel, "cache_key"):
        raise RuntimeError("TRITON_INTERPRET was set when the kernels were imported: no compiler")
    target = GPUTarget("cuda", arch, 32)
    binaries = {}
    for name, kernel, signature, constants in variants():
        pointers = [n for n, kind in enumerate(signature.values()) if kind.startswith("*")]
        aligned: dict[Any, Any] = {(n,): [["tt.divisibility", 16]] for n in pointers}
        source = ASTSource(fn=kernel, signature=signature, constexprs=dict(constants), attrs=aligned)
        binaries[name] = triton.compile(source, target=target).asm["cubin"]
    return binaries


def resources(binary: bytes) -> dict[str, int]:
    """Registers a thread takes, and bytes of stack (to which registers spill) and shared memory.

    Parameters
    ----------
    binary : bytes
        One of `compile_all`.

    Returns
    -------
    dict
        Keys ``REG``, ``STACK``, ``SHARED`` and others; empty where the tool that reads them is missing.

    Examples
    --------
    >>> resources(b"not a binary")
    {}
    """
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    if not tool.exists():
        return {}
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return {key: int(value) for key, value in re.findall(r"\b(REG|STACK|SHARED|LOCAL):(\d+)", answer.stdout)}


def main() -> None:
    """Print a line for each kernel.

    Examples
    --------
    >>> main()  # doctest: +SKIP
    """
    print(f"{'kernel':40} {'bytes':>7} {'registers':>9} {'stack':>6} {'shared':>6}")
    for name, binary in compile_all().items():
        used = resources(binary)
        registers, stack, shared = (used.get(key, "-") for key in ("REG", "STACK", "SHARED"))
        print(f"{name:40} {len(binary):7} {registers:>9} {stack:>6} {shared:>6}")


if __name__ == "__main__":
    main()
