"""Tuning of converted models by adapters of low rank, which end up in the weights."""

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from learnsolve.linearize.attention import LigerAttention
from learnsolve.training import FitOptions, FitProgress, FitResult, fit

# Of targets, where nothing is asked.
NOTHING = -100

Batches = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class LoRAOptions:
    """Adapters: to each of some weights a product of two thin matrices is added.

    Parameters
    ----------
    rank, alpha : int
        The product is scaled by ``alpha / rank``.
    output : bool
        Whether the projection of attention's output gets one too, beside those of queries, keys and values.

    Raises
    ------
    ValueError
        A number is not positive.

    References
    ----------
    Hu and others, *LoRA: low-rank adaptation of large language models*, ICLR 2022, section 4.1.

    Examples
    --------
    >>> from learnsolve.linearize import LoRAOptions
    >>> LoRAOptions(output=True).targets
    ('q_proj', 'k_proj', 'v_proj', 'o_proj')
    """

    rank: int = 8
    alpha: int = 8
    output: bool = False

    def __post_init__(self) -> None:
        if any(not isinstance(one, int) or one < 1 for one in (self.rank, self.alpha)):
            raise ValueError(
                f"rank is {self.rank!r} and alpha {self.alpha!r}; positive integers are accepted"
            )

    @property
    def targets(self) -> tuple[str, ...]:
        """Of the weights, as Hugging Face calls them."""
        return ("q_proj", "k_proj", "v_proj") + ("o_proj",) * self.output


def windows(tokens: Tensor, count: int, length: int) -> Batches:
    """Batches of windows of a text, anywhere in it, for `tune`.

    Parameters
    ----------
    tokens : (n,) int64 Tensor
    count, length : int
        Of the windows of a batch.

    Returns
    -------
    callable
        Gives tokens and those that follow each, (count, length) int64 each.

    Raises
    ------
    ValueError
        The text is shorter than a window, or a number is not positive.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.linearize import windows
    >>> made = windows(torch.arange(9), 2, 3)(0, torch.Generator().manual_seed(0))
    >>> bool((made[0] + 1 == made[1]).all()), made[0].shape
    (True, torch.Size([2, 3]))
    """
    if count < 1 or length < 1 or tokens.ndim != 1 or len(tokens) <= length:
        raise ValueError(
            f"there are {tuple(tokens.shape)} tokens for {count} windows of length {length}; positive "
            "numbers, and more tokens than the length, are accepted"
        )

    def made(_: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        starts = torch.randint(0, len(tokens) - length, (count, 1), generator=generator)
        found = tokens[starts + torch.arange(length + 1)]
        return found[:, :-1], found[:, 1:]

    return made


def next_token_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross entropy of what comes next, for `learnsolve.training.fit`.

    Examples
    --------
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from learnsolve.linearize.tuning import next_token_loss
    >>> sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    >>> tokens = torch.tensor([[0, 1, 2]])
    >>> next_token_loss(LlamaForCausalLM(LlamaConfig(vocab_size=5, **sizes)), (tokens, tokens)).shape
    torch.Size([])
    """
    device = next(model.parameters()).device
    tokens, targets = (one.to(device) for one in batch)
    logits = model(input_ids=tokens, use_cache=False).logits
    return cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=NOTHING)


def tune(
    model: nn.Module,
    batches: Batches,
    options: FitOptions,
    lora: LoRAOptions | None = None,
    *,
    folder: str | os.PathLike | None = None,
    validate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    callback: Callable[[FitProgress], Any] | None = None,
) -> tuple[nn.Module, FitResult]:
    """Tune a converted model by adapters, and add them to its weights at the end.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Converted by `linearize`; it is changed.
    batches : callable
        ``batches(number, generator)``: tokens and those that follow each, (B, T) int64 each; -100 where
        nothing is asked. See `windows`.
    options : FitOptions
    lora : LoRAOptions, optional
    folder, validate, callback
        As of `learnsolve.training.fit`.

    Returns
    -------
    model : transformers.PreTrainedModel
        With as many parameters as before. If the run was stopped, that of its last step.
    result : FitResult

    Raises
    ------
    ValueError
        The model was not converted, or as from `learnsolve.training.fit`.
    ModuleNotFoundError
        peft is not installed.

    References
    ----------
    Hu and others, *LoRA: low-rank adaptation of large language models*, ICLR 2022, section 4.1.

    Examples
    --------
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from learnsolve.linearize import LigerOptions, linearize, tune, windows
    >>> from learnsolve.training import FitOptions
    >>> sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    >>> model = linearize(LlamaForCausalLM(LlamaConfig(vocab_size=5, **sizes)))
    >>> batches = windows(torch.arange(50) % 5, 2, 8)
    >>> tuned, result = tune(model, batches, FitOptions(steps=2, learning_rate=1e-3, optimizer="adamw"))
    >>> result.finished, tuned.num_parameters() == model.num_parameters()
    (True, True)
    """
    if not any(isinstance(one, LigerAttention) for one in model.modules()):
        raise ValueError(f"the {type(model).__name__} was not converted; one of linearize is accepted")
    from peft import LoraConfig, LoraModel

    lora = lora or LoRAOptions()
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        adapted: Any = LoraModel(model, config, "default")
    result = fit(
        adapted, next_token_loss, batches, options, folder=folder, validate=validate, callback=callback,
        config={"lora": asdict(lora)},
    )  # fmt: skip
    merged: nn.Module = adapted.merge_and_unload()
    return merged.requires_grad_(True), result


@torch.no_grad()
def next_token_accuracy(
    model: nn.Module, tokens: Tensor, targets: Tensor, *, begin: int = 0, chunk: int = 16
) -> float:
    """Share of tokens that a model holds for the likeliest, and that come.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    tokens, targets : (B, T) int64 Tensor
        Targets are -100 where nothing is asked.
    begin : int
        Places before it are not counted.
    chunk : int
        Sequences at a time.

    Examples
    --------
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from learnsolve.linearize import next_token_accuracy
    >>> sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    >>> tokens = torch.zeros(2, 3, dtype=torch.int64)
    >>> next_token_accuracy(LlamaForCausalLM(LlamaConfig(vocab_size=1, **sizes)), tokens, tokens)
    1.0
    """
    device, right = next(model.parameters()).device, 0
    for part, asked in zip(tokens.split(chunk), targets.split(chunk), strict=True):
        likeliest = model(input_ids=part.to(device), use_cache=False).logits.argmax(-1).cpu()
        right += int((likeliest == asked)[:, begin:].sum())
    return right / max(1, int((targets[:, begin:] != NOTHING).sum()))
