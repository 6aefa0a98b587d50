"""
What a state can hold
=====================

Pairs of a key and a value, then keys again: what was the value? Attention looks it up among all tokens. A
recurrence must have put it into a state of constant size, from which the delta rule takes what a key stood
for before it writes anew, whereas linear attention adds everything to everything.
"""

import torch
from matplotlib.figure import Figure

from learnsolve.problems.sequence_tasks import Recall
from learnsolve.sequence.backbone import BackboneOptions
from learnsolve.sequence.training import SequenceTraining, accuracy, train
from learnsolve.training import FitOptions

# %%
# Four pairs, asked for within 24 tokens. All models have two layers, the same data and as many steps; the
# shipped config ``recall`` has 8 pairs within 64 tokens, and takes a minute.

torch.set_num_threads(1)  # of small tensors, threads take longer to wait than to work
task = Recall(pairs=4, vocabulary_size=32)
models = ("deltanet", "attention", "linear-attention", "lstm")
pairs = (1, 2, 3, 4, 6, 8)
figure = Figure(layout="constrained")
ax = figure.subplots()
for name in models:
    network = BackboneOptions(task.vocabulary, task.classes, width=32, heads=1, mixers=(name,))
    fit = FitOptions(steps=300, learning_rate=3e-3, warmup=30)
    training = SequenceTraining(network, fit, lengths=(24, 24), judged=(24,))
    found, result = train(training, task)
    found.eval()
    shares = [accuracy(found, Recall(count, 32), 48).everywhere for count in pairs]
    print(f"{name}: {result.metrics['accuracy_24']:.3f} of 4 pairs, after {result.seconds:.0f} s")
    ax.plot(pairs, shares, marker="o", label=name)

# %%
# Asked for more pairs than they were trained on, within 48 tokens:

ax.axvline(4, color="0.8", zorder=0)
ax.set(xlabel="pairs", ylabel="right", ylim=(0, 1.02), xticks=pairs)
ax.legend()
figure.savefig("associative_recall.png", dpi=100)
