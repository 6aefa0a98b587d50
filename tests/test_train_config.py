"""What ``learnsolve train`` reads: configs, domains, files of cells, and clean refusals."""

import tomllib

import numpy as np
import pytest
import torch

from learnsolve.cli.train_config import DataOptions, TrainingConfig
from learnsolve.cli.train_data import domains, matrix, sources
from learnsolve.problems import poisson
from learnsolve.training.shipped import shipped
from learnsolve.training.tables import from_table
from learnsolve.training.toml import toml_text
from tests.train_cli_cases import TINY, train, written


def test_each_domain_on_each_shape_with_each_seed(tmp_path):
    cells = np.zeros((9, 7), np.int64)
    cells[3, 2:5], cells[-1] = 1, 2
    np.save(tmp_path / "mine.npy", cells)
    tables = TINY | {
        "data": {
            "shapes": [[16, 16], [8, 12]],
            "domains": ["room", "mine.npy", "maze"],
            "seeds": [4, 5],
        }
    }
    data = TrainingConfig.from_tables(tables, tmp_path).data
    names, matrices = zip(*domains(data), strict=True)
    assert names[:-1] == ("room", "maze4", "maze5") * 2 and names[-1].startswith("mine-")
    assert [A.domain_shape for A in matrices] == [(16, 16)] * 3 + [(8, 12)] * 3 + [(9, 7)]
    np.testing.assert_array_equal(matrices[-1].cells, cells)
    np.testing.assert_array_equal(matrices[2].cells, poisson.maze((16, 16), 5).A.cells)
    assert [source.A.unknowns for source in sources(data, torch.device("cpu"), None)] == [
        A.unknowns for A in matrices
    ]


def test_a_domain_of_ones_own(tmp_path):
    cells = np.zeros((16, 12), np.uint8)
    cells[5:8, 3:6], cells[-2:] = 1, 2
    (tmp_path / "cells").mkdir()
    np.save(tmp_path / "cells" / "mine.npy", cells)
    config = written(
        tmp_path / "a.toml",
        data={"shapes": [], "domains": ["cells/mine.npy"]},
        held_out={"shapes": [[16, 16]]},
    )
    outcome = train(config, tmp_path / "run")
    assert outcome.exit_code == 0, outcome.output
    report = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert "on the grids of the files, domains mine.npy;" in report
    cells[0, 0] = 1
    np.save(tmp_path / "cells" / "mine.npy", cells)
    outcome = train(config, tmp_path / "run")
    assert outcome.exit_code == 1
    assert "holds a run with other options: config.cells" in outcome.stderr


def test_a_file_of_cells_alone_gives_the_shape_that_is_judged(tmp_path):
    np.save(tmp_path / "mine.npy", np.zeros((6, 5), np.int8))
    tables = {name: table for name, table in TINY.items() if name != "held_out"}
    tables["data"] = {"domains": ["mine.npy"]}
    assert TrainingConfig.from_tables(tables, tmp_path).held_out.shapes == ((6, 5),)


@pytest.mark.parametrize(
    ("cells", "what"),
    [
        (np.zeros((8, 8)), "holds float64; cells are integers"),
        (np.full((8, 8), 3), "holds 3; 0 (fluid), 1 (solid) and 2 (air) are accepted"),
        (np.full((8, 8), -1), "holds -1; 0 (fluid)"),
        (np.ones((8, 8), int), "holds no fluid cell"),
        (np.zeros((8, 3), int), "holds an array of shape (8, 3)"),
        (np.zeros(8, int), "holds an array of shape (8,)"),
        (np.zeros((8, 8, 8), int), "has 3 axes, but the network is for 2"),
        (None, "is no .npy file of integers"),
    ],
)
def test_a_file_of_cells_that_is_none(tmp_path, cells, what):
    if cells is None:
        (tmp_path / "mine.npy").write_text("no array", encoding="utf-8")
    else:
        np.save(tmp_path / "mine.npy", cells)
    config = written(tmp_path / "a.toml", data={"domains": ["mine.npy"]})
    refused(train(config, tmp_path / "run"), what)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("domain", "singular"), [("room", False), ("dirichlet", False), ("closed", True)])
def test_empty_domains(domain, singular):
    A = matrix(domain, (6, 5))
    assert A.singular == singular
    assert A.unknowns == (20 if domain == "room" else 30)
    assert float(A.diagonal().max()) == 4
    assert (float(A.diagonal()[0, 0]) == 4) == (domain == "dirichlet")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"guess": {"a": 1}}, "there is no table [guess]"),
        ({"fit": {"stepz": 3}}, "[fit] has no key 'stepz'; its keys are steps, learning_rate"),
        ({"fit": {"steps": "many"}}, "[fit] steps must be an integer, not 'many'"),
        ({"fit": {"steps": True}}, "[fit] steps must be an integer, not True"),
        ({"fit": {"warmup": 4}}, "[fit] warmup must be less than steps"),
        ({"network": {"dims": 3}}, "set dims = 2 in [network]"),
        ({"network": {"architecture": "deep"}}, "must be one of 'recursive', 'paper', not 'deep'"),
        ({"dcdm": {"network": 1}}, "[dcdm] has no key 'network'"),
        ({"dcdm": {"depth": 0}}, "[dcdm] depth is 0"),
        ({"data": {"domain": "room"}}, "[data] has no key 'domain'; its keys are shapes, domains"),
        ({"data": {"domains": ["sphere"]}}, "[data] domains holds 'sphere'; 'room', 'dirichlet'"),
        ({"data": {"domains": []}}, "[data] domains is empty"),
        ({"data": {"seeds": [-1]}}, "[data] seeds are (-1,)"),
        (
            {"data": {"domains": ["obstacles"], "seeds": [5, 1001]}},
            "seed 1001 of obstacles is in [data] seeds",
        ),
        ({"data": {"domains": ["mine.npy"]}}, "there is no file"),
        ({"data": {"shapes": []}}, "[data] shapes is empty"),
        ({"data": {"shapes": [16, 16]}}, "[data] shapes, item 1: must be a list, not 16"),
        ({"data": {"shapes": [[16, 2]]}}, "[data] shapes holds [16, 2]"),
        ({"data": {"low": 2.0}}, "[data] low is 2.0"),
        ({"held_out": {"families": ["ball"]}}, "families, item 1: must be one of 'obstacles'"),
        ({"held_out": {"rtol": 0.0}}, "[held_out] rtol is 0.0"),
    ],
)
def test_a_wrong_config_ends_with_two_before_any_work(tmp_path, changes, what):
    refused(train(written(tmp_path / "a.toml", **changes), tmp_path / "run"), what)
    assert not (tmp_path / "run").exists()


def refused(outcome, what):
    assert outcome.exit_code == 1, outcome.output
    assert what in outcome.stderr
    assert outcome.stdout == ""
    assert len(outcome.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[fit\n", "a.toml: Expected"),
        ("fit = 1\n[data]\nshapes = [[8, 8]]\n", "fit must be a table, not 1"),
        ("[data]\nshapes = [[8, 8]]\n", "the table [fit] is missing"),
        ("[fit]\n[data]\nshapes = [[8, 8]]\n", "[fit] lacks 'steps'"),
    ],
)
def test_a_file_that_is_no_config(tmp_path, text, what):
    (tmp_path / "a.toml").write_text(text, encoding="utf-8")
    refused(train(tmp_path / "a.toml", tmp_path / "run"), what)


@pytest.mark.parametrize(
    ("name", "what"), [("no.toml", "there is no file no.toml"), ("guess", "there are poisson2d, poisson3d")]
)
def test_a_config_that_is_not_there(tmp_path, name, what):
    refused(train(name, tmp_path / "run"), what)


@pytest.mark.parametrize("kind", ["dcdm", "multigrid"])
def test_shipped_configs_are_read(kind):
    for name in shipped(kind, ".toml"):
        config = TrainingConfig.read(name, kind)
        assert config.kind == kind
        assert f"poisson{config.dims}d" == name
        # The record and the options of fit make the config again.
        tables = {**config.record(), "fit": {"steps": config.training.fit.steps}}
        assert TrainingConfig.from_tables(tomllib.loads(toml_text(tables)), kind=kind).data == config.data


def test_without_held_out_systems_the_last_shape_is_judged():
    tables = {name: table for name, table in TINY.items() if name != "held_out"}
    assert TrainingConfig.from_tables(tables).held_out.shapes == ((16, 16),)


def test_numbers_of_tables_become_those_of_the_fields():
    options = from_table(DataOptions, {"shapes": [[8, 8]], "weight": 2}, "data")
    assert isinstance(options.weight, float)
    assert options.shapes == ((8, 8),)
