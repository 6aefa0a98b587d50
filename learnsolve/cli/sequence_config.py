"""The config file of ``learnsolve sequence train``: a task, a network, and how it is trained."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from learnsolve.problems.sequence_tasks import TASKS, Task
from learnsolve.sequence.backbone import KIND, BackboneOptions
from learnsolve.sequence.training import SequenceTraining
from learnsolve.training import FitOptions
from learnsolve.training.shipped import config_of
from learnsolve.training.tables import from_table

TABLES = ("task", "network", "fit", "train")


@dataclass(frozen=True)
class TrainOptions:
    """The table [train]: see `SequenceTraining`."""

    batch: int = 64
    lengths: tuple[int, int] = (3, 40)
    judged: tuple[int, ...] = (40, 256)
    count: int = 256


@dataclass(frozen=True)
class SequenceConfig:
    """All that says what a run does."""

    task: Task
    training: SequenceTraining

    @classmethod
    def read(cls, config: str) -> "SequenceConfig":
        """A config of a file, or a shipped one.

        Raises
        ------
        ValueError
            The file is no TOML, or has a table, key or value that is not accepted; the message says which.
        OSError
            There is no such file, nor config of that name.
        """
        return config_of(KIND, config, lambda tables, _: cls.of_tables(tables))

    @classmethod
    def of_tables(cls, tables: Mapping[str, Any]) -> "SequenceConfig":
        """A config of tables as `tomllib` reads them."""
        for name in tables:
            if name not in TABLES:
                raise ValueError(f"there is no table [{name}]; the tables are {', '.join(TABLES)}")
        for name in ("task", "fit"):
            if name not in tables:
                raise ValueError(f"the table [{name}] is missing")
        about = dict(tables["task"])
        kind = about.pop("name", None)
        if kind not in TASKS:
            raise ValueError(f"name of [task] is {kind!r}; {', '.join(TASKS)} are accepted")
        task: Task = from_table(TASKS[kind], about, "task")
        sizes = {"vocabulary": task.vocabulary, "classes": task.classes, "features": task.features}
        network = {**sizes, **tables.get("network", {})}
        options: TrainOptions = from_table(TrainOptions, tables.get("train", {}), "train")
        training = SequenceTraining(
            from_table(BackboneOptions, network, "network"),
            from_table(FitOptions, tables["fit"], "fit"),
            options.batch, options.lengths, options.judged, options.count,
        )  # fmt: skip
        return cls(task, training)

    def changed(
        self,
        steps: int | None = None,
        timeout: float | None = None,
        seed: int | None = None,
        mixers: tuple[str, ...] | None = None,
        beta_max: float | None = None,
    ) -> "SequenceConfig":
        """Some options changed; with the steps the warm-up shrinks or grows.

        Raises
        ------
        ValueError
            As `FitOptions` and `BackboneOptions`.
        """
        fit, network = self.training.fit, self.training.network
        if steps is not None:
            fit = replace(fit, steps=steps, warmup=fit.warmup * steps // fit.steps)
        fit = replace(fit, timeout=fit.timeout if timeout is None else timeout)
        fit = replace(fit, seed=fit.seed if seed is None else seed)
        network = replace(
            network,
            mixers=mixers or network.mixers,
            beta_max=network.beta_max if beta_max is None else beta_max,
        )
        return replace(self, training=replace(self.training, fit=fit, network=network))

    def record(self) -> dict[str, Any]:
        """The tables but for [fit], which the run's folder notes anyway."""
        rest = {name: getattr(self.training, name) for name in TrainOptions.__dataclass_fields__}
        task = {"name": self.task.name, **asdict(self.task)}
        return {"task": task, "network": asdict(self.training.network), "train": rest}
