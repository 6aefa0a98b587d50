"""Triton kernels: interpreted on the CPU, compiled without a GPU, and run on one where there is one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from learnsolve.kernels import grid, grid_reference, sparse, sparse_reference
from tests.kernel_cases import grid_case, sparse_case, to

ROOT = Path(__file__).resolve().parents[1]
FORMS = ("triton_forms", "sequence_triton_forms", "dynamics_triton_forms")
# Bytes of shared memory that a program may take on Hopper.
SHARED = 227 * 1024
pytest.importorskip("triton", reason="triton is not installed")


def run_forms(name, **environment):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/{name}.py"]
    variables = {**os.environ, **environment}
    done = subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@pytest.mark.parametrize("name", FORMS)
def test_interpreted(name):
    run_forms(name, TRITON_INTERPRET="1")


def test_every_kernel_compiles_for_hopper_without_one():
    from learnsolve.kernels import ahead_of_time

    names = [name for name, *_ in ahead_of_time.variants()]
    assert len(set(names)) == len(names)
    kernels = ahead_of_time.compile_all(90)
    assert list(kernels) == names
    for name, kernel in kernels.items():
        binary = kernel.asm["cubin"]
        assert binary.startswith(b"\x7fELF"), name
        assert kernel.metadata.shared <= SHARED, name
        used = ahead_of_time.resources(binary)
        # Division in double precision is a subroutine of ptxas, whose frame is a few words a thread.
        frame = 32 if name.endswith("fp64") else 0
        assert used.get("STACK", 0) <= frame, f"{name} spills its registers: {used}"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", FORMS)
def test_on_a_gpu(name):
    run_forms(name, TRITON_INTERPRET="0")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
def test_dispatchers_on_a_gpu(dtype):
    stencil, b, x = grid_case("unit", (9, 17, 33), dtype)
    answer = grid.residual(to(stencil, "cuda"), b.cuda(), x.cuda())
    torch.testing.assert_close(answer.cpu(), grid_reference.residual(stencil, b, x))
    *matrix, _ = sparse_case(40, 30, dtype, torch.int32)
    right = torch.ones(30, 3, dtype=dtype)
    answer = sparse.spmv(*(t.cuda() for t in matrix), right.cuda())
    torch.testing.assert_close(answer.cpu(), sparse_reference.spmv(*matrix, right))
    with pytest.raises(NotImplementedError, match="relax_rows"):
        sparse.gauss_seidel(*(t.cuda() for t in (*matrix, right, right, right)), 1.0)
