"""
Which characters ask for attention
==================================

SeqBoat smooths all tokens by moving averages, and lets some of them attend: those for which a switch, learned
with the rest, is on. Here it learns to continue text, the sources of Python's own library, and shows where
its switches are.
"""

from matplotlib.figure import Figure

from learnsolve.problems.text import Text, decode
from learnsolve.sequence.backbone import BackboneOptions
from learnsolve.sequence.training import SequenceTraining, accuracy, train
from learnsolve.training import FitOptions

task = Text()
options = BackboneOptions(vocabulary=97, classes=97, width=32, layers=2, mixers=("seqboat",), window=32)
fit = FitOptions(steps=150, learning_rate=4e-3)
network, result = train(SequenceTraining(options, fit, batch=16, lengths=(128, 128), judged=(128,)), task)
found = accuracy(network, task, 128)
print(f"on pieces that it has not seen: {found.everywhere:.3f} right, {found.loss:.3f} nats a character")

# %%
# A line of text that was not learned from. What is dark attends to the last 31 dark ones, however far back.
tokens, _ = task.judged.batch(1, 72, seed=1)
network(tokens)
text = decode(tokens[0]).replace("\n", "↵")

figure = Figure(figsize=(11, 2.6), layout="constrained")
axes = figure.subplots(2)
for number, (axis, block) in enumerate(zip(axes, network.blocks, strict=True)):
    active = block.mixer.activated.int()[None]
    axis.imshow(active, cmap="Blues", vmin=0, vmax=1.5, aspect="auto")
    for place, character in enumerate(text):
        axis.text(place, 0, character, ha="center", va="center", family="monospace")
    axis.set(yticks=[], xticks=[], title=f"layer {number + 1}: {block.mixer.rate:.0%} of the characters")
    print(f"layer {number + 1}: {block.mixer.rate:.0%} active")
figure.savefig("sparse_activation.png", dpi=110)
