"""Conversion: softmax attention of a causal language model makes room for Liger attention."""

from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from learnsolve.linearize.attention import LigerAttention, LigerOptions

# Of ``config.model_type``: decoders whose attention has four projections and turns by places.
FAMILIES = ("llama", "mistral", "qwen2")
# The key of a config under which the options stand.
KEY = "liger"
# What Hugging Face makes masks by.
MASKS = "learnsolve_liger"


def linearize(model: nn.Module, options: LigerOptions | None = None) -> nn.Module:
    """Put Liger attention in the place of softmax attention.

    Weights stay as they are, and none are added. What the converted model answers needs tuning; see `tune`.
    It generates with a memory that does not grow. Attention dropout, if the model has it, is left out. Tokens
    may be padded, but sequences may not be packed.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A causal language model of the Llama, Mistral or Qwen2 family; it is changed in place.
    options : LigerOptions, optional

    Returns
    -------
    transformers.PreTrainedModel
        The model.

    Raises
    ------
    ValueError
        The model is of another family, or converted already.
    ModuleNotFoundError
        transformers is not installed.

    References
    ----------
    Lan, Sun, Hu, Du and Cheng, *Liger: linearizing large language models to gated recurrent structures*,
    2025.

    Examples
    --------
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from learnsolve.linearize import LigerOptions, linearize
    >>> sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=5, **sizes))
    >>> before = model.num_parameters()
    >>> linearize(model, LigerOptions("gla", window=4)).num_parameters() == before
    True
    """
    options = options or LigerOptions()
    config: Any = getattr(model, "config", None)
    family = getattr(config, "model_type", type(model).__name__)
    layers: Any = getattr(getattr(model, "model", None), "layers", None)
    if family not in FAMILIES or layers is None:
        raise ValueError(f"the model is a {family}; a causal one of {', '.join(FAMILIES)} is accepted")
    if any(isinstance(layer.self_attn, LigerAttention) for layer in layers):
        raise ValueError("the model is converted already; an original is accepted")
    from transformers import AttentionMaskInterface

    AttentionMaskInterface.register(MASKS, new_tokens)
    for layer in layers:
        layer.self_attn = LigerAttention(layer.self_attn, options).train(layer.self_attn.training)
    # With the usual masks a prompt would take room by the square of its length.
    config._attn_implementation = MASKS
    setattr(config, KEY, asdict(options))
    return model


def new_tokens(
    *_: Any,
    q_length: int | None = None,
    cache_position: Tensor | None = None,
    attention_mask: Tensor | None = None,
    **__: Any,
) -> Tensor | None:
    """Which of the new tokens are no padding, for Hugging Face's attention masks; None for all.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.linearize.convert import new_tokens
    >>> new_tokens(q_length=2, attention_mask=torch.tensor([[False, True, True], [False, False, True]]))
    tensor([[ True,  True],
            [False,  True]])
    """
    if attention_mask is None:
        return None
    # Versions before 5 give places instead of a number.
    count = q_length if cache_position is None else len(cache_position)
    assert count is not None
    mask = attention_mask[:, attention_mask.shape[1] - count :].bool()
    return None if bool(mask.all()) else mask
