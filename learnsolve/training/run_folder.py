"""The folder of a training run: config.toml, metrics.jsonl and checkpoint.safetensors."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from learnsolve.files import replacing
from learnsolve.training.toml import toml_text
from learnsolve.training.weights import read_tensors, write_tensors

CHECKPOINT = "checkpoint.safetensors"
CHECKPOINT_FORMAT = "learnsolve-checkpoint-1"


class RunFolder:
    """Reads and writes the files of one run.

    Parameters
    ----------
    path : str or os.PathLike
        The folder; made with its parents if need be.
    identity : mapping
        What a checkpoint must agree in to be continued, as names and values.
    writes : bool
        Whether this process writes; over several processes, one does.
    """

    def __init__(self, path: str | os.PathLike, identity: Mapping[str, Any], writes: bool = True) -> None:
        self.path = Path(path)
        self.identity = identity
        self.writes = writes
        self.weights = self.path / "weights.safetensors"
        self.checkpoint = self.path / CHECKPOINT
        self.metrics = self.path / "metrics.jsonl"

    def read_checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and metadata of the checkpoint; None if there is none.

        Raises
        ------
        ValueError
            The checkpoint is of a run that differs in its identity; the message says where.
        WeightsError
            The file is damaged.
        """
        if not self.checkpoint.exists():
            return None
        tensors, metadata = read_tensors(self.checkpoint, CHECKPOINT_FORMAT)
        there, here = _flat(metadata.get("identity", {})), _flat(self.identity)
        for name in sorted(there.keys() | here.keys()):
            if there.get(name) != here.get(name):
                raise ValueError(
                    f"{self.path} holds a run with other options: {name} is {there.get(name, 'not given')} "
                    f"there and {here.get(name, 'not given')} here; give another folder or the same options"
                )
        return tensors, metadata

    def write_checkpoint(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Replace the checkpoint."""
        if self.writes:
            content = {**metadata, "identity": self.identity}
            write_tensors(self.checkpoint, tensors, CHECKPOINT_FORMAT, content)

    def read_metrics(self, last: int) -> list[dict[str, Any]]:
        """The lines of metrics up to step ``last``; a line cut short by the end of a process is left out."""
        lines = []
        if self.metrics.exists():
            for text in self.metrics.read_text(encoding="utf-8").splitlines():
                try:
                    line = json.loads(text)
                except ValueError:
                    continue
                if line["step"] <= last:
                    lines.append(line)
        return lines

    def begin(self, config: Mapping[str, Any], lines: list[dict[str, Any]]) -> None:
        """Write config.toml, and metrics.jsonl with the lines that stay."""
        if not self.writes:
            return
        text = toml_text(config)
        self.path.mkdir(parents=True, exist_ok=True)
        with replacing(self.path / "config.toml") as part:
            part.write_text(text, encoding="utf-8", newline="\n")
        with replacing(self.metrics) as part:
            part.write_text("".join(map(_line, lines)), encoding="utf-8", newline="\n")

    def log(self, line: Mapping[str, Any]) -> None:
        """Append a line of metrics."""
        if self.writes:
            with open(self.metrics, "a", encoding="utf-8", newline="\n") as stream:
                stream.write(_line(line))


def parts_begun_with(path: str | os.PathLike) -> int | None:
    """Of how many parts the batches of a folder's run are; None where there is none."""
    checkpoint = Path(path) / CHECKPOINT
    if not checkpoint.exists():
        return None
    _, metadata = read_tensors(checkpoint, CHECKPOINT_FORMAT)
    parts = metadata.get("identity", {}).get("fit", {}).get("parts")
    return parts if isinstance(parts, int) else None


def finite(value: float) -> float | None:
    """The value, or None, which is what JSON has for NaN and infinity."""
    return value if math.isfinite(value) else None


def _line(line: Mapping[str, Any]) -> str:
    return json.dumps(line, allow_nan=False) + "\n"


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted names and values as JSON, in which 1 and 1.0 differ and NaN equals itself."""
    flat: dict[str, str] = {}
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = json.dumps(value, sort_keys=True)
    return flat
