"""
A language model that stops growing
===================================

Softmax attention keeps the keys and values of all that it has read. Liger attention keeps a window of them
and a matrix: half of what comes out is softmax attention within the window, half a gated linear recurrence,
whose gates are the keys' own channels. So a pretrained model is converted without a parameter more, and tuned
by adapters for a small share of its training. Here the model is a Llama of two layers that reads characters.
"""

import copy
from itertools import pairwise

import torch
from matplotlib.figure import Figure
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from learnsolve.linearize import LigerOptions, linearize, tune
from learnsolve.linearize.cache import as_argument, cache_numbers
from learnsolve.linearize.tuning import next_token_loss
from learnsolve.problems.sequence_tasks import Text
from learnsolve.problems.text import decode, encode
from learnsolve.training import FitOptions, fit

# %%
# First the model is trained, on sources of Python's standard library, with contexts of 64 characters. Two
# heads of queries share one of keys and values.

task, context, window = Text(), 64, 8
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=task.vocabulary, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, bos_token_id=None, eos_token_id=None,
)  # fmt: skip
original = LlamaForCausalLM(config)


def batches(number, generator):
    """Of training."""
    return task.batch(16, context, (0, number))


training = FitOptions(steps=400, learning_rate=4e-3, optimizer="adamw", schedule="cosine", warmup=20)
result = fit(original, next_token_loss, batches, training)
print(f"{original.num_parameters():,} parameters, trained in {result.seconds:.0f} s")

# %%
# Then it is converted, with a window of 8 characters, and tuned by a twentieth of as many tokens.


def fewer(number, generator):
    """Of tuning."""
    return task.batch(2, context, (1, number))


converted = linearize(copy.deepcopy(original), LigerOptions("gla", window))
tuning = FitOptions(steps=160, learning_rate=3e-3, optimizer="adamw", schedule="linear")
tuned, _ = tune(copy.deepcopy(converted), fewer, tuning)
alone = linearize(copy.deepcopy(original), LigerOptions(window=window, share=0.0))
print(f"{tuned.num_parameters():,} parameters after it")

# %%
# How often is the next character right, in text that was held out? A model of this size learns little from
# what is further back than some words, so that the window alone, without a recurrence, loses hardly anything
# here. A value that is to be found by a key outside the window is lost without it: see :doc:`/linearize`. And
# how many numbers does a model remember when it has read so much?

tokens, targets = task.judged.batch(256, context, seed=2)
figure = Figure(figsize=(9, 4), layout="constrained")
left, right = figure.subplots(1, 2)
models = {"original": original, "converted": converted, "tuned": tuned, "window alone": alone}
for name, model in models.items():
    with torch.no_grad():
        hits = (model(input_ids=tokens, use_cache=False).logits.argmax(-1) == targets).float()
    print(f"{name}: {hits.mean():.3f} right")
    left.plot(range(4, context + 1, 4), hits.mean(0).reshape(-1, 4).mean(1), label=name)
left.axvline(window, color="0.8", zorder=0)
left.set(xlabel="characters before", ylabel="right")
left.legend()

lengths = (0, 16, 64, 256, 1024)
for name in ("original", "tuned"):
    remembered, cache = [], DynamicCache()
    for begin, end in pairwise(lengths):
        piece = torch.zeros(1, end - begin, dtype=torch.int64)
        with torch.no_grad():
            models[name](input_ids=piece, use_cache=True, **as_argument(original, cache))
        keys = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
        remembered.append(cache_numbers(cache) or keys)
    right.loglog(lengths[1:], remembered, marker="o", label=name)
right.set(xlabel="characters read", ylabel="numbers remembered")
right.legend()
figure.savefig("linearize_llm.png", dpi=100)

# %%
# The tuned model goes on with a text by Hugging Face's own ``generate``.

start = torch.from_numpy(encode("    def __init__(self"))[None]
print(decode(tuned.generate(start, max_new_tokens=120, do_sample=True, temperature=0.7)[0]))
