"""Compile every Triton kernel of the package for a GPU that need not be there.

``python -m learnsolve.kernels.ahead_of_time`` prints a table of what it made.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from learnsolve.kernels import (
    attention_triton,
    chunked_adjoint_triton,
    chunked_triton,
    convolution_triton,
    grid_triton,
    recurrence_triton,
    rows_triton,
    shplrnn_triton,
    sparse_triton,
)

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
    "length",
    "heads",
    "channels",
    "group_stride",
    "time_stride",
    "K",
    "V",
    "tokens",
    "shares",
    "span",
    "dilation",
    "every",
    "hidden",
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
_STEPS: list[tuple[str, Any]] = [
    ("attend", attention_triton.attend_kernel),
    ("attend_adjoint", attention_triton.attend_adjoint_kernel),
    ("substitute", attention_triton.substitute_kernel),
    ("delta", attention_triton.delta_kernel),
    ("delta_adjoint", attention_triton.delta_adjoint_kernel),
]
_CHUNKED: list[tuple[str, Any, dict[str, bool]]] = [
    ("prepare", chunked_triton.prepare_kernel, {}),
    ("states", chunked_triton.states_kernel, {"SOLVE": False}),
    ("states_solved", chunked_triton.states_kernel, {"SOLVE": True}),
    ("output", chunked_triton.output_kernel, {}),
    ("prepare_adjoint", chunked_adjoint_triton.prepare_adjoint_kernel, {}),
    ("adjoints", chunked_adjoint_triton.adjoints_kernel, {"SOLVE": False}),
    ("adjoints_solved", chunked_adjoint_triton.adjoints_kernel, {"SOLVE": True}),
    ("values", chunked_adjoint_triton.values_kernel, {}),
    ("keys", chunked_adjoint_triton.keys_kernel, {}),
    ("corrections", chunked_adjoint_triton.corrections_kernel, {}),
]
# Of chunked forms the dtype of inputs, that of what is computed, and the width of keys and values.
_WIDTHS = [
    ("fp64", "fp64", torch.float64, 64),
    *(("fp32", "fp32", torch.float32, size) for size in (64, 128)),
    *(("bf16", "fp32", torch.bfloat16, size) for size in (64, 128)),
]


def variants() -> Iterator[tuple[str, Any, dict[str, str], dict[str, Any], dict[str, int]]]:
    """List what there is to compile.

    Yields
    ------
    name, kernel, signature, constants, options
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
                yield full, kernel, _signature(kernel, tile, real, first), tile, {}
        for index in ("i32", "i64"):
            for name, kernel, constants in _SPARSE:
                tile = {**constants, "ROWS": 64, "WIDTH": 8}
                types = {"indptr": f"*{index}", "indices": f"*{index}", "rows": f"*{index}"}
                full = f"sparse.{name}.{index}.{real}"
                yield full, kernel, _signature(kernel, tile, real, types), tile, {}
        rows = {"indptr": "*i64", "indices": "*i32"}
        for loss in (0, 1, 2):
            sums = {"WEIGHTED": loss > 0, "LOSS": loss, "K": 16}
            kernel = rows_triton.normal_kernel
            yield f"rows.normal.{loss}.{real}", kernel, _signature(kernel, sums, real, rows), sums, {}
            steps = {**sums, "DAMPED": loss > 0, "TILE": 8}
            kernel = rows_triton.cg_kernel
            yield f"rows.cg.{loss}.{real}", kernel, _signature(kernel, steps, real, rows), steps, {}
    yield from _sequences()
    yield from _maps()


def _maps() -> Iterator[tuple[str, Any, dict[str, str], dict[str, Any], dict[str, int]]]:
    """Piecewise-linear maps, of few units and of many."""
    kernel: Any
    for real in ("fp32", "fp64"):
        for M, H in ((4, 64), (8, 256), (16, 128)):
            keep = shplrnn_triton.kept(M, H, torch.float64 if real == "fp64" else torch.float32)
            tile: dict[str, Any] = {"CLIPPED": True, "TARGETS": True, "KEPT": keep}
            tile |= {"M": M, "H": H}
            options = {"num_warps": shplrnn_triton.warps(M, H)}
            for name, kernel, own in (
                ("orbit", shplrnn_triton.orbit_kernel, {"DRIVE": True}),
                ("adjoint", shplrnn_triton.adjoint_kernel, {}),
            ):
                signature = _signature(kernel, tile | own, real, {"first": f"*{real}"})
                yield f"shplrnn.{name}.{M}.{H}.{real}", kernel, signature, tile | own, options


def _sequences() -> Iterator[tuple[str, Any, dict[str, str], dict[str, Any], dict[str, int]]]:
    """Kernels over sequences: step by step in single and double, by chunks in half precision too."""
    kernel: Any
    for real in ("fp32", "fp64"):
        types = {"pieces": "*i64", "first": f"*{real}", "k": f"*{real}"}
        kernel = recurrence_triton.scan_kernel
        for name, reverse, ends in (("scan", False, False), ("adjoint", True, False), ("ends", True, True)):
            tile = {"TIME": recurrence_triton.TIME, "CHANNELS": recurrence_triton.CHANNELS}
            tile = {**tile, "REVERSE": reverse, "ENDS": ends}
            yield f"recurrence.{name}.{real}", kernel, _signature(kernel, tile, real, types), tile, {}
        for name, kernel in (
            ("forward", convolution_triton.convolve_kernel),
            ("adjoint", convolution_triton.adjoint_kernel),
        ):
            tile = {"TIME": convolution_triton.TIME, "CHANNELS": convolution_triton.CHANNELS}
            signature = _signature(kernel, tile, real, {**types, "cuts": "*i64"})
            yield f"convolution.{name}.{real}", kernel, signature, tile, {}
        for name, kernel in _STEPS:
            decay = 1 if name == "delta_adjoint" else 2
            precision = tl.float64 if real == "fp64" else tl.float32
            tile = {"REAL": precision, "DECAY": decay, **attention_triton.tile(64, 64)}
            signature = _signature(kernel, tile, real, types)
            yield f"steps.{name}.{real}", kernel, signature, tile, {"num_warps": attention_triton.warps(64)}
    for given, real, dtype, size in _WIDTHS:
        constants = chunked_triton.constants(size, size, True, dtype)
        names = ("q", "k", "v", "beta", "g", "do", "o", "dq", "dv")
        types = dict.fromkeys(names, f"*{given}") | {"first": f"*{real}"}
        types |= dict.fromkeys(("pieces", "bounds", "chunks"), "*i64")
        options = {"num_warps": chunked_triton.warps(size, dtype)}
        for name, kernel, flags in _CHUNKED:
            tile = {key: value for key, value in constants.items() if key in kernel.arg_names} | flags
            # What is solved for is made from what a kernel before it computed.
            own = {"v": f"*{real}"} if flags.get("SOLVE") else {}
            signature = _signature(kernel, tile, real, types | own)
            yield f"chunked.{name}.{size}.{given}", kernel, signature, tile, options


def _signature(kernel: Any, constants: dict[str, Any], real: str, types: dict[str, str]) -> dict[str, str]:
    signature = {}
    for argument in kernel.arg_names:
        if argument in constants:
            signature[argument] = "constexpr"
        elif argument in types:
            signature[argument] = types[argument]
        elif argument in _INTEGERS:
            signature[argument] = "i32"
        else:
            signature[argument] = "fp64" if argument in ("omega", "scale") else f"*{real}"
    return signature


def compile_all(arch: int = 90) -> dict[str, Any]:
    """Compile every kernel, for every stencil, index and number type.

    Parameters
    ----------
    arch : int
        Compute capability times ten: 90 for Hopper.

    Returns
    -------
    dict from name to CompiledKernel
        Its ``asm["cubin"]`` is the binary, as for `cuModuleLoadData`; ``metadata.shared`` counts the bytes of
        shared memory that a launch takes.

    Raises
    ------
    RuntimeError
        Under Triton's interpreter, which replaces the compiler.

    Examples
    --------
    >>> sorted(compile_all())[0]  # doctest: +SKIP
    'chunked.adjoints.128.bf16'
    """
    if not hasattr(grid_triton.point_kernel, "cache_key"):
        raise RuntimeError("TRITON_INTERPRET was set when the kernels were imported: no compiler")
    target = GPUTarget("cuda", arch, 32)
    compiled = {}
    for name, kernel, signature, constants, options in variants():
        pointers = [n for n, kind in enumerate(signature.values()) if kind.startswith("*")]
        # As at a launch, widths of keys and values are known to be multiples of 16, as pointers are.
        sizes = [n for n, argument in enumerate(signature) if argument in ("K", "V")]
        sizes = [n for n in sizes if list(signature.values())[n] == "i32"]
        aligned: dict[Any, Any] = {(n,): [["tt.divisibility", 16]] for n in (*pointers, *sizes)}
        source = ASTSource(fn=kernel, signature=signature, constexprs=dict(constants), attrs=aligned)
        compiled[name] = triton.compile(source, target=target, options=options)
    return compiled


def resources(binary: bytes) -> dict[str, int]:
    """Registers a thread takes, and bytes of stack (to which registers spill) and shared memory.

    Parameters
    ----------
    binary : bytes
        ``asm["cubin"]`` of one of `compile_all`.

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
    for name, kernel in compile_all().items():
        binary, shared = kernel.asm["cubin"], kernel.metadata.shared
        used = resources(binary)
        registers, stack = (used.get(key, "-") for key in ("REG", "STACK"))
        print(f"{name:40} {len(binary):7} {registers:>9} {stack:>6} {shared:>6}")


if __name__ == "__main__":
    main()
