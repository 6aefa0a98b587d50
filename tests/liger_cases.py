"""Tiny causal language models of the families that can be linearized, of random weights."""

import pytest
import torch

from learnsolve.linearize import LigerOptions, linearize

transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 23, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": None,
    "eos_token_id": None, "pad_token_id": 0,
}  # fmt: skip
FAMILIES = {
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)),
    "mistral": lambda: transformers.MistralForCausalLM(transformers.MistralConfig(**SIZES)),
    "qwen2": lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SIZES)),
}


def original(family="llama", seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = FAMILIES[family]().eval()
        # Larger than usual, so that tokens make a difference.
        for name, weight in model.named_parameters():
            if "proj" in name or "embed" in name:
                torch.nn.init.normal_(weight, std=0.3)
    return model


def converted(family="llama", gate="gla", window=5, share=0.5):
    return linearize(original(family), LigerOptions(gate, window, share))


def logits(model, tokens, **options):
    with torch.no_grad():
        return model(input_ids=tokens, **options).logits


def tokens_of(*shape, seed=0):
    return torch.randint(1, 23, shape, generator=torch.Generator().manual_seed(seed))


def offline(monkeypatch):
    """For a fixture: no hub is asked, no bar is shown."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    transformers.utils.logging.disable_progress_bar()
    yield
    transformers.utils.logging.enable_progress_bar()
