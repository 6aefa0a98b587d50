"""
A drop-in for scipy's iterative solvers
=======================================

A program that calls ``scipy.sparse.linalg.cg`` changes one import and one name. The answer is the
same; the result knows more than scipy's exit code.
"""

# %%
# A heat equation with a jump in the conductivity, assembled by scipy as usual.

import time

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

import learnsolve

n = 100
conductivity = np.ones(n + 1)
conductivity[n // 3 : n // 2] = 10.0
step = sp.diags([np.ones(n), -np.ones(n)], [0, -1], shape=(n + 1, n))
line = step.T @ sp.diags(conductivity) @ step
A = sp.csr_matrix(sp.kron(line, sp.eye(n)) + sp.kron(sp.eye(n), line))
b = np.ones(n * n)

# %%
# Before, and after: the same arguments, the same pair of answers.

begin = time.perf_counter()
x_scipy, info_scipy = spla.cg(A, b, rtol=1e-8)
seconds = time.perf_counter() - begin
x, info = learnsolve.solve(A, b, method="cg", rtol=1e-8)

print(f"scipy: exit code {info_scipy}, {seconds:.2f} s")
print(f"learnsolve: exit code {info}, difference {np.abs(x - x_scipy).max() / np.abs(x).max():.1e}")

# %%
# The whole result: iterations, the recomputed residual, and why it ended. Without a method the
# package picks one; ``prepare`` keeps what it set up for the next right-hand side.

result = learnsolve.solve(A, b, method="cg", rtol=1e-8)
print("cg:", result)
print("auto:", (result := learnsolve.solve(A, b, rtol=1e-8)), result.method)

solver = learnsolve.prepare(A, method="cg", M="ruge_stuben")
for scale in (1.0, 2.0):
    print("prepared:", solver.solve(scale * b, rtol=1e-8))
