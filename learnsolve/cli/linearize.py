"""``learnsolve linearize``: a language model whose memory does not grow, of one whose memory does."""

from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from learnsolve.cli.common import INTERRUPTED, Quiet
from learnsolve.cli.runs import Device, Run, command_line, signals

if TYPE_CHECKING:
    from torch import Tensor, nn

    from learnsolve.training import FitProgress

# Of the text: what is judged by, and how much of that.
HELD_OUT, JUDGED = 10, 64


def linearize(
    path: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="A folder of a Llama, Mistral or Qwen2 by Hugging Face."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for the converted model.")],
    gate: Annotated[
        str, typer.Option(help="The recurrence: gla, scalar-gla, hgrn2, lightnet, gated-delta.")
    ] = "gla",
    window: Annotated[int, typer.Option(min=1, help="Tokens that softmax attention still sees.")] = 64,
    share: Annotated[float, typer.Option(min=0, max=1, help="Of the recurrence in what comes out.")] = 0.5,
    text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Text in UTF-8 to tune by, a tenth of it held out.", show_default=False
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Of tuning.")] = 200,
    batch: Annotated[int, typer.Option(min=1, help="Windows of text a step.")] = 8,
    length: Annotated[int, typer.Option(min=2, help="Tokens of such a window.")] = 512,
    rate: Annotated[float, typer.Option(help="The largest learning rate.")] = 1e-3,
    rank: Annotated[int, typer.Option(min=1, help="Of the adapters.")] = 8,
    output: Annotated[
        bool, typer.Option("--output", help="Adapt the projection of attention's output too.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of tuning.")] = 0,
    device: Device = "cpu",
    quiet: Quiet = False,
) -> None:
    """Convert a pretrained language model to gated recurrences, and tune it by a text.

    Half of softmax attention within a window, half of a recurrence whose gates are the keys' own: not a
    parameter more, and a memory that does not grow as it generates. DIR gets model.safetensors, config.json
    and the tokenizer. Nothing is downloaded. Exit code 0: written; 1: wrong model, text or option,
    or tuning failed; 130: interrupted, nothing written.
    """
    command = command_line("learnsolve", "linearize", str(path), out=out, gate=gate, text=text)
    run = Run(command, 0, quiet)
    for name in ("transformers", "peft"):
        if find_spec(name) is None:
            raise ValueError(f"{name} is not installed: pip install learnsolve[llm]")
    import torch

    from learnsolve.linearize import LigerOptions, LoRAOptions, convert, files, tuning
    from learnsolve.training import FitOptions

    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("there is no CUDA device; use --device cpu")
    options, lora = LigerOptions(gate, window, share), LoRAOptions(rank, output=output)
    files.check_new(out)
    _without_bars()
    model = files.read_original(path)
    learned, judged = (None, None) if text is None else _tokens(path, text, model, length)
    model = model.to(device)
    before = None if judged is None else _accuracy(model, judged)
    model = convert.linearize(model, options)
    if learned is not None and judged is not None:
        right = [("original", before), ("converted", _accuracy(model, judged))]
        fit = FitOptions(steps, learning_rate=rate, optimizer="adamw", schedule="linear", seed=seed)
        batches = tuning.windows(learned, batch, length)
        with run.bar("figures") as bar, signals() as asked:
            task = bar.add_task("tuning", total=steps, figures="")

            def callback(now: "FitProgress") -> bool:
                left = timedelta(seconds=round(now.eta))
                bar.update(task, completed=now.step, figures=f"loss {now.loss:.4f}, {left} left")
                return asked()

            model, result = tuning.tune(model, batches, fit, lora, callback=callback)
        if not result.finished:
            run.say(f"stopped at step {result.step} of {steps}; nothing was written")
            raise typer.Exit(INTERRUPTED)
        right.append((f"tuned by {steps * batch * length:,} tokens", _accuracy(model, judged)))
        for name, value in right:
            run.say(f"{name}: {value:.4f} right of the next tokens in what was held out")
    files.save(out, model.cpu(), tokenizer=path)
    run.say(f"wrote {out}")


def _without_bars() -> None:
    """Hugging Face draws bars of its own."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _tokens(
    path: Path, text: Path, model: "nn.Module", length: int
) -> "tuple[Tensor, tuple[Tensor, Tensor]]":
    """What is learned from, and windows that are judged by."""
    import torch
    from transformers import AutoTokenizer

    from learnsolve.linearize.files import TOKENIZER

    config: Any = model.config
    if not any((path / name).is_file() for name in TOKENIZER):
        raise FileNotFoundError(f"{path} has no tokenizer, which a text needs")
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    try:
        words = text.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{text} is no text in UTF-8: {error}") from None
    found = torch.tensor(tokenizer(words, add_special_tokens=False, verbose=False)["input_ids"])
    if len(found) < 2 * HELD_OUT * (length + 1) or int(found.max()) >= config.vocab_size:
        raise ValueError(
            f"{text} has {len(found)} tokens, up to number {int(found.max()) if len(found) else 0}; at least "
            f"{2 * HELD_OUT * (length + 1)}, below {config.vocab_size}, are accepted"
        )
    kept = len(found) // HELD_OUT
    ends = found[-kept:]
    rows = min(JUDGED, kept // (length + 1))
    tails = ends[: rows * (length + 1)].reshape(rows, length + 1)
    return found[:-kept], (tails[:, :-1], tails[:, 1:])


def _accuracy(model: "nn.Module", judged: "tuple[Tensor, Tensor]") -> float:
    from learnsolve.linearize import next_token_accuracy

    return next_token_accuracy(model.eval(), *judged)
