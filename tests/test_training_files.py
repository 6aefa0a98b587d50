"""Files of weights, and TOML."""

import math
import tomllib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from learnsolve.training import (
    WeightsError,
    load_weights,
    save_weights,
)
from learnsolve.training.toml import toml_text
from learnsolve.training.weights import WEIGHTS_FORMAT, _digest
from tests.training_cases import assert_same_bits, regressor, weights


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, regressor(), {"levels": 3, "names": ["a", "b"], "nested": {"x": 0.5}})
    return path


def written(path, tensors, form=WEIGHTS_FORMAT, metadata="{}"):
    text = {"format": form, "metadata": metadata, "sha256": _digest(tensors, metadata)}
    save_file(tensors, path, metadata=text)
    return path


def refused(path, message, **bound):
    network = regressor(seed=1)
    before = weights(network)
    with pytest.raises(WeightsError, match=message) as caught:
        load_weights(path, network, **bound)
    assert str(path) in str(caught.value)
    assert_same_bits(before, weights(network))


def test_weights_round_trip(file):
    network = regressor(seed=1)
    assert load_weights(file, network) == {"levels": 3, "names": ["a", "b"], "nested": {"x": 0.5}}
    assert_same_bits(weights(network), weights(regressor()))
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_weights_come_in_the_dtype_of_the_network(file):
    network = regressor(seed=1).double()
    load_weights(file, network)
    assert network[0].weight.dtype == torch.float64
    assert torch.equal(network[0].weight.float(), regressor()[0].weight)


def test_weights_of_tied_complex_and_integer_tensors(tmp_path):
    def network():
        made = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3))
        made[1].weight = made[0].weight
        made.phase = nn.Parameter(torch.randn(2, dtype=torch.complex64))
        return made

    one, other = network(), network()
    save_weights(tmp_path / "w", one)
    assert load_weights(tmp_path / "w", other) == {}
    assert_same_bits(weights(one), weights(other))


@settings(max_examples=60)
@given(st.floats(0, 1, exclude_max=True))
def test_weights_cut_short(tmp_path_factory, share):
    path = tmp_path_factory.mktemp("cut") / "w.safetensors"
    save_weights(path, regressor())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refused(path, "not a whole safetensors file")


@settings(max_examples=60)
@given(st.data())
def test_changed_headers_are_read_or_refused_cleanly(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("changed") / "w.safetensors"
    save_weights(path, regressor())
    content = bytearray(path.read_bytes())
    size = int.from_bytes(content[:8], "little")
    for place in data.draw(st.lists(st.integers(0, 8 + size - 1), min_size=1, max_size=3)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        load_weights(path, regressor())
    except WeightsError:
        pass


def test_weights_that_do_not_fit(tmp_path):
    good = weights(regressor())
    path = tmp_path / "w"
    without = {name: tensor for name, tensor in good.items() if name != "0.bias"}
    refused(written(path, without), "lacks 0.bias")
    refused(written(path, {**good, "more": torch.ones(1)}), "has unknown more")
    refused(written(path, {f"x.{name}": t for name, t in good.items()}), "lacks .* 1 more and has unknown")
    shape = r"0.bias has shape \(3,\), expected \(8,\)"
    refused(written(path, {**good, "0.bias": torch.ones(3)}), shape)
    whole_numbers = {**good, "0.bias": torch.ones(8, dtype=torch.int32)}
    refused(written(path, whole_numbers), "0.bias has dtype torch.int32, expected a floating one")
    refused(written(path, {**good, "0.bias": torch.full((8,), math.inf)}), "0.bias holds NaN or infinity")
    refused(written(path, good, form="learnsolve-weights-99"), "its format is 'learnsolve-weights-99'")
    refused(written(path, good, metadata="[1"), "metadata are not a JSON object")
    save_file(good, path, metadata={"format": WEIGHTS_FORMAT, "metadata": "{}"})
    refused(path, "its checksum is missing")
    save_file(good, path)
    refused(path, "its format is None, expected 'learnsolve-weights-1'")


def test_weights_files_are_bounded_and_must_exist(file):
    refused(file, "bytes are more than the 100 that are accepted", max_bytes=100)
    load_weights(file, regressor(), max_bytes=file.stat().st_size)
    with pytest.raises(FileNotFoundError):
        load_weights(file.with_name("none"), regressor())
    with pytest.raises(FileNotFoundError):
        save_weights(file.parent / "none" / "w", regressor())


def test_a_failed_write_leaves_the_old_weights(file):
    before = file.read_bytes()
    with pytest.raises(TypeError):
        save_weights(file, regressor(seed=1), {"a": object()})
    assert file.read_bytes() == before


# TOML


KEYS = st.text(st.characters(codec="utf-8"), max_size=5)
PLAIN = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8"), max_size=10),
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_toml_is_read_back(mapping):
    assert tomllib.loads(toml_text(mapping)) == mapping


def test_toml_leaves_none_out_and_refuses_the_rest():
    assert tomllib.loads(toml_text({"a": None, "b": {"c": None}, "d": [{"e": None}]})) == {"b": {}, "d": [{}]}
    assert math.isnan(tomllib.loads(toml_text({"a": math.nan}))["a"])
    with pytest.raises(TypeError, match="TOML wants strings as keys, not 1"):
        toml_text({1: 2})
    for value in (object(), [None], {1}, b"x", 1j):
        with pytest.raises(TypeError, match="TOML cannot hold"):
            toml_text({"a": value})
