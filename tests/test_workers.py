"""Processes that work for another."""

import signal
import subprocess
import sys

import torch

from learnsolve.workers import cores, pool

KILLED = """
import os, signal
from learnsolve.workers import pool

if __name__ == "__main__":
    processes = pool(1)
    assert processes.submit(os.getpid).result() != os.getpid()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_they_share_the_cores():
    with pool(1) as processes:
        assert processes.submit(torch.get_num_threads).result() == cores()
    with pool(2 * cores()) as processes:
        assert processes.submit(torch.get_num_threads).result() == 1


def test_they_end_with_a_process_that_is_killed(tmp_path):
    (tmp_path / "killed.py").write_text(KILLED)
    # What a process wrote is at its end when none has it open any more, workers included.
    done = subprocess.run(
        [sys.executable, tmp_path / "killed.py"], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_beside_a_process_that_works_on():
    with pool(1, beside=True) as processes:
        assert processes.submit(torch.get_num_threads).result() == 1
        assert processes.submit(signal.getsignal, signal.SIGINT).result() == signal.SIG_IGN
    with pool(1) as processes:
        assert processes.submit(signal.getsignal, signal.SIGINT).result() == signal.default_int_handler
