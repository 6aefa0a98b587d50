"""Every example in a docstring runs and prints what it says."""

import doctest
import importlib
import warnings
from importlib.util import find_spec

import pytest

from tests.test_imports import MODULES

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
NAMES = [name.removesuffix(".__init__") for name in MODULES]


@pytest.mark.parametrize("name", NAMES)
def test_examples_of(name, tmp_path, monkeypatch):
    if ("triton" in name or name.endswith("ahead_of_time")) and find_spec("triton") is None:
        pytest.skip("triton is not installed")
    if "linearize" in name and (find_spec("transformers") is None or find_spec("peft") is None):
        pytest.skip("transformers or peft is not installed")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module = importlib.import_module(name)
        result = doctest.testmod(module, optionflags=FLAGS)
    assert result.failed == 0
