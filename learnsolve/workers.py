"""Processes that work for this one, and end when it does."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pool(count: int, *, beside: bool = False) -> ProcessPoolExecutor:
    """An executor of so many processes, which do not outlive this one, also where it is killed.

    Parameters
    ----------
    count : int
    beside : bool
        This process works on meanwhile: a worker takes one thread, and no notice of interrupts from the
        keyboard, which are for this one. Otherwise they share its cores.
    """
    context = multiprocessing.get_context("spawn")
    threads = 1 if beside else max(cores() // count, 1)
    return ProcessPoolExecutor(count, context, _begin, (threads, beside))


def _begin(threads: int, beside: bool) -> None:
    """In a worker."""
    import torch

    torch.set_num_threads(threads)
    if beside:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
