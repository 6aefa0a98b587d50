"""Workers that share the cores: which tests each takes, and that none spins or starts threads."""

import os

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Few tests that take long: begun last, one worker would go on alone.
BEGIN_WITH = [f"test_{name}.py" for name in ("kernels_triton", "batch", "threads", "benchmarks", "tuned")]


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in BEGIN_WITH)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """One worker takes a whole file, whose tests share compiled kernels; the longest go by themselves."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file, _, _ = nodeid.partition("::")
            return nodeid if file.endswith("test_kernels_triton.py") else file

    # Files in the order above, not those with most tests first.
    config.option.loadscopereorder = False
    return Scheduler(config, log)
