"""A tiny config of ``learnsolve train``, and the command."""

from typer.testing import CliRunner

from learnsolve.cli import app
from learnsolve.training.toml import toml_text

TINY = {
    "network": {"dims": 2, "channels": 4},
    "fit": {"steps": 4, "learning_rate": 2e-3, "warmup": 1, "validate_every": 2},
    "dcdm": {"depth": 3, "cells": 512},
    "data": {"shapes": [[16, 16]]},
    "held_out": {"shapes": [[16, 16]], "families": ["obstacles"], "rhs": ["noise"]},
}


def written(path, **changes):
    """A config file: the tiny one with some tables changed."""
    tables = {name: TINY.get(name, {}) | changes.get(name, {}) for name in {**TINY, **changes}}
    path.write_text(toml_text(tables), encoding="utf-8")
    return path


def train(config, out, *options, kind="dcdm"):
    arguments = ["train", kind, "--config", config, "--out", out, *options]
    return CliRunner().invoke(app, [str(argument) for argument in arguments])
