"""Small language models, linearized: what comes back with tuning, and what decoding remembers.

A Llama learns a task; then its attention is replaced, and adapters are tuned by a share of the tokens that it
was trained with. Two tasks: to continue text, character by character, where most is told by what stands just
before; and to find values by their keys, which a window shorter than their distance cannot. Rows of the
window alone say what the recurrence is worth. Accuracy is the share of right answers in what was held out.
"""

import argparse
import copy
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import measure
from benchmarks.poisson import consoles

# Tokens whose decoding is timed.
DECODED = 64


@dataclass(frozen=True)
class Sizes:
    """Of a model and its training.

    Parameters
    ----------
    width, layers, heads : int
        Two heads of queries share one of keys.
    context, batch, steps : int
        Of the original's training.
    tuned_batch : int
        Sequences of a step of tuning.
    windows : tuple of int
        Of what takes its place.
    lengths : tuple of int
        At which it is judged, besides the context.
    count : int
        Sequences that are judged, of each length.
    """

    width: int = 64
    layers: int = 2
    heads: int = 4
    context: int = 128
    batch: int = 16
    steps: int = 2000
    tuned_batch: int = 4
    windows: tuple[int, ...] = (16, 4)
    lengths: tuple[int, ...] = (16, 256)
    count: int = 256


TASKS = {
    "text": Sizes(),
    "recall": Sizes(context=32, batch=64, steps=1200, tuned_batch=16, windows=(4,), lengths=(), count=1024),
}
SCRATCH = "nothing learned before"
GATES = ("gla", "scalar-gla", "hgrn2", "lightnet", "gated-delta", "none")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.linearize", description=__doc__)
    command.add_argument("--task", nargs="+", choices=list(TASKS), default=list(TASKS))
    command.add_argument("--gate", nargs="+", choices=GATES, default=GATES, help="none: the window alone")
    command.add_argument("--tuned", type=float, nargs="*", default=[1.0, 5.0], help="per cent of the tokens")
    command.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    command.add_argument("--rate", type=float, default=1e-2, help="of tuning")
    command.add_argument("--text", default="", help="a file; default: sources of Python's standard library")
    command.add_argument("--memory", type=int, nargs="*", default=[1024, 16384], help="lengths to decode")
    for name, value in asdict(Sizes()).items():
        several = {"nargs": "*"} if isinstance(value, tuple) else {}
        command.add_argument(f"--{name}", type=int, help="instead of the task's", **several)
    command.add_argument("--json", type=Path, help="default: a new file in benchmarks/results")
    return command


class Study:
    """An original, and what becomes of it.

    Parameters
    ----------
    task : str
    sizes : Sizes
    seed : int
        Of the weights and of what is drawn.
    rate : float
        Of tuning.
    path : str
        A file of text, or none.
    """

    def __init__(self, task: str, sizes: Sizes, seed: int, rate: float = 1e-2, path: str = "") -> None:
        from learnsolve.problems.sequence_tasks import Recall, Text

        self.name, self.sizes, self.seed, self.rate = task, sizes, seed, rate
        self.task = Text(path) if task == "text" else Recall(pairs=4, vocabulary_size=32)
        self.original = self.untrained()
        self.right = 0.0

    def untrained(self) -> Any:
        """The model, with random weights."""
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        sizes = self.sizes
        config = LlamaConfig(
            vocab_size=self.task.vocabulary, hidden_size=sizes.width, intermediate_size=2 * sizes.width,
            num_hidden_layers=sizes.layers, num_attention_heads=sizes.heads,
            num_key_value_heads=max(1, sizes.heads // 2), max_position_embeddings=4 * sizes.context,
            bos_token_id=None, eos_token_id=None, pad_token_id=None, tie_word_embeddings=True,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return LlamaForCausalLM(config)

    def batches(self, number: int, _: Any) -> Any:
        """Of the original's training."""
        return self.task.batch(self.sizes.batch, self.sizes.context, (self.seed, number, 0))

    def few(self, number: int, _: Any) -> Any:
        """Of tuning: fewer sequences a step, so that few tokens are many steps."""
        return self.task.batch(self.sizes.tuned_batch, self.sizes.context, (self.seed, number, 2))

    def steps(self, share: float) -> int:
        """Of tuning, by a share of the tokens in per cent."""
        sizes = self.sizes
        return max(1, int(share / 100 * sizes.steps * sizes.batch / sizes.tuned_batch))

    def train(self, model: Any, steps: int, batches: Any) -> None:
        """All weights."""
        from learnsolve.linearize.tuning import next_token_loss
        from learnsolve.training import FitOptions, fit

        options = FitOptions(
            steps, learning_rate=2e-3, optimizer="adamw", schedule="cosine", warmup=steps // 20,
            seed=self.seed,
        )  # fmt: skip
        fit(model, next_token_loss, batches, options)

    def tune(self, model: Any, steps: int) -> Any:
        """Adapters of rank 8 on queries, keys and values, as in the paper but for the rate."""
        from learnsolve.linearize import tune
        from learnsolve.training import FitOptions

        options = FitOptions(
            steps, learning_rate=self.rate, optimizer="adamw", schedule="linear", seed=self.seed
        )
        return tune(model, self.few, options)[0]

    def converted(self, gate: str, window: int, original: Any) -> Any:
        """A copy with other attention; of the gate "none" with the window alone."""
        from learnsolve.linearize import LigerOptions, linearize

        share = 0.0 if gate == "none" else 0.5
        options = LigerOptions("gla" if gate == "none" else gate, window, share)
        return linearize(copy.deepcopy(original), options)

    def judged(self, model: Any) -> dict[str, float]:
        """How right a model is, by length."""
        from learnsolve.linearize import next_token_accuracy

        found = {}
        for length in (self.sizes.context, *self.sizes.lengths):
            batch = self.task.judged.batch(self.sizes.count, length, (self.seed, length, 1))
            found[f"accuracy_{length}"] = next_token_accuracy(model.eval(), *batch)
        return found

    def rows(self, gates: Sequence[str], shares: Sequence[float]) -> Iterator[dict[str, Any]]:
        """The original, conversions without tuning and with it, and as much training of random weights."""

        def row(model: Any, kind: str, window: int, share: float, began: float) -> dict[str, Any]:
            found = {"task": self.name, "kind": kind, "window": window, "tuned": share, "seed": self.seed}
            seconds = time.process_time() - began
            found |= {"numbers": model.num_parameters(), "seconds": seconds, **self.judged(model)}
            right = found[f"accuracy_{self.sizes.context}"]
            self.right = self.right or right
            return {**found, "recovered": right / max(self.right, 1e-9)}

        began = time.process_time()
        self.train(self.original, self.sizes.steps, self.batches)
        yield row(self.original, "original", 0, 100.0, began)
        for window in self.sizes.windows:
            for gate in gates:
                for share in (0.0, *shares):
                    began = time.process_time()
                    model = self.converted(gate, window, self.original)
                    model = self.tune(model, self.steps(share)) if share else model
                    yield row(model, gate, window, share, began)
            for share in shares:
                began = time.process_time()
                model = self.converted(gates[0], window, self.untrained())
                self.train(model, self.steps(share), self.few)
                yield row(model, SCRATCH, window, share, began)


def remembered(model: Any, length: int, seed: int) -> dict[str, Any]:
    """Numbers that a model holds after reading so many tokens."""
    import torch
    from transformers import DynamicCache

    from learnsolve.linearize.cache import as_argument, cache_numbers

    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(model.config.vocab_size, (1, length), generator=generator)
    cache = DynamicCache(config=model.config)
    began = time.process_time()
    with torch.no_grad():
        for part in tokens.split(512, 1):
            model(input_ids=part, use_cache=True, logits_to_keep=1, **as_argument(model, cache))
        reading = time.process_time() - began
        keys = sum(one.keys.numel() + one.values.numel() for one in cache.layers)
        numbers = cache_numbers(cache) or keys
        began = time.process_time()
        for _ in range(DECODED):
            model(input_ids=tokens[:, :1], use_cache=True, **as_argument(model, cache))
    decoding = (time.process_time() - began) / DECODED
    return {"length": length, "remembered": numbers, "reading": reading, "decoding": decoding}


def tables(rows: list[dict[str, Any]], memory: list[dict[str, Any]]) -> Iterator[Table]:
    """Means over seeds of each task, and what is remembered."""
    for task in dict.fromkeys(row["task"] for row in rows):
        there = [row for row in rows if row["task"] == task]
        names = [name for name in there[0] if name.startswith("accuracy_")] + ["recovered"]
        heads = [name.replace("accuracy_", "right of ") for name in names]
        title = f"{task}: what is right, held out; means over seeds, and their spread"
        shown = Table("model", "window", "tokens, %", "seconds", *heads, title=title, title_justify="left")
        for key in dict.fromkeys((row["kind"], row["window"], row["tuned"]) for row in there):
            same = [row for row in there if (row["kind"], row["window"], row["tuned"]) == key]
            kind, window, share = key
            name = "window alone" if kind == "none" else kind
            seconds = statistics.fmean(row["seconds"] for row in same)
            figures = [_spread([row[name] for row in same]) for name in names]
            shown.add_row(name, str(window or "--"), f"{share:g}", f"{seconds:.1f}", *figures)
        yield shown
    if memory:
        heads = ["model", "tokens read", "numbers remembered", "ms a token"]
        shown = Table(*heads, title="decoding; one thread, processor time", title_justify="left")
        for row in memory:
            decoding = f"{1e3 * row['decoding']:.2f}"
            shown.add_row(row["kind"], str(row["length"]), str(row["remembered"]), decoding)
        yield shown


def _spread(found: list[float]) -> str:
    mean = f"{statistics.fmean(found):.3f}"
    return f"{mean} ± {statistics.stdev(found):.3f}" if len(found) > 1 else mean


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    options = parser().parse_args(arguments)
    torch.set_num_threads(1)
    measure.keep_memory()
    console, progress = consoles()
    changed = {name: getattr(options, name) for name in asdict(Sizes())}
    changed = {name: tuple(v) if isinstance(v, list) else v for name, v in changed.items() if v is not None}
    rows = []
    for task in options.task:
        for seed in options.seeds:
            study = Study(task, replace(TASKS[task], **changed), seed, options.rate, options.text)
            for row in study.rows(options.gate, options.tuned):
                rows.append(row)
                told = f"{task}, seed {seed}, {row['kind']}, window {row['window']}, {row['tuned']:g} %"
                progress.print(f"[dim]{told}: {row['recovered']:.3f} of the original[/]", highlight=False)
    kinds = [("original", study.original)]
    kinds += [(one, study.converted(one, study.sizes.windows[0], study.original)) for one in options.gate]
    memory = [
        {"kind": kind, **remembered(model.eval(), length, 0)}
        for kind, model in kinds
        for length in options.memory
    ]
    for shown in tables(rows, memory):
        console.print(shown)
    path = measure.write_rows("linearize", options, [*rows, *memory])
    console.print(f"written to {path}", style="dim", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
