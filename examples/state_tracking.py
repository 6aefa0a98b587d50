"""
What a state can follow
=======================

Whether the ones so far are an odd number: a state that can only forget cannot say, one that can be turned
around can, at any length. Both are the delta rule; they differ in how large its step may be.
"""

from matplotlib.figure import Figure

from learnsolve.problems.sequence_tasks import Parity
from learnsolve.sequence.backbone import BackboneOptions
from learnsolve.sequence.training import SequenceTraining, accuracy, train
from learnsolve.training import FitOptions

task = Parity()
lengths = (10, 20, 40, 80, 160, 320)

# %%
# A step multiplies the state by I - beta k k'. With keys of norm one, and beta up to one, its eigenvalues are
# between zero and one; with beta up to two, it can be a reflection. Attention has no state, but sees all.

models = {
    "delta rule, beta up to 2": {"beta_max": 2.0},
    "delta rule, beta up to 1": {"beta_max": 1.0},
    "softmax attention": {"mixers": ("attention",)},
}
figure = Figure(layout="constrained")
ax = figure.subplots()
for name, options in models.items():
    options = {"width": 32, "layers": 1, "conv": 0, "beta_slope": 10.0, **options}
    network = BackboneOptions(task.vocabulary, task.classes, **options)
    fit = FitOptions(steps=400, learning_rate=3e-3, warmup=40)
    training = SequenceTraining(network, fit, lengths=(3, 40), judged=(40,))
    found, result = train(training, task)
    shares = [accuracy(found.eval(), task, length).last for length in lengths]
    print(f"{name}: {shares[2]:.3f} at 40, {shares[-1]:.3f} at {lengths[-1]}, after {result.seconds:.0f} s")
    ax.semilogx(lengths, shares, marker="o", base=2, label=name)

# %%
# It was trained on lengths up to 40.

ax.axvline(40, color="0.8", zorder=0)
ax.set(xlabel="length", ylabel="right at the end", ylim=(0.4, 1.02), xticks=lengths, xticklabels=lengths)
ax.legend()
figure.savefig("state_tracking.png", dpi=100)
