"""
A memory that grows with a curriculum
=====================================

A recurrent network is asked whether the ones among its last N bits are an odd number. Asked for a large N at
once it learns nothing; asked for two bits, then three, it goes on. Whether it must still answer the old
questions while it learns the new ones decides how fast it goes, and what kind of memory it grows.
"""

import torch
from matplotlib.figure import Figure

from learnsolve.dynamics.timescale_analysis import ablated, single_neuron_timescales, spectral_radius
from learnsolve.dynamics.timescales import LeakyRNN
from learnsolve.problems.timescale_tasks import draw_length, n_parity
from learnsolve.training import Curriculum, FitOptions, fit

torch.set_num_threads(1)
FIRST, HEADS = 2, 20


def asked(network, bits, labels, sizes):
    """What heads say of bits, and how often they are right."""
    said = network(bits, [size - FIRST for size in sizes])
    return said, (said.argmax(-1) == labels).float().mean(0)


def accuracies(network, sizes, seed=0):
    """Of each N, on bits of their own."""
    generator = torch.Generator().manual_seed(seed)
    bits, labels = n_parity(1000, draw_length(max(sizes), generator), sizes, generator)
    with torch.no_grad():
        return dict(zip(sizes, asked(network, bits, labels, sizes)[1].tolist(), strict=True))


# %%
# The curriculum says which N to train on. It is asked for in each batch, and told how well they are answered
# whenever the network is validated; it goes on to the next N where that is above 98 %. What it stands at is
# carried along, so that a run that was stopped goes on with the same N.


def trained(kind, seed=0):
    """A network, and the largest N that it had passed at each look."""
    curriculum, passed = Curriculum(kind, FIRST), []
    network = LeakyRNN(96, HEADS, generator=torch.Generator().manual_seed(seed))

    def batch(number, generator):
        sizes = curriculum.sizes
        return *n_parity(64, draw_length(max(sizes), generator), sizes, generator), sizes

    def loss(network, batch):
        bits, labels, sizes = batch
        said, _ = asked(network, bits, labels, sizes)
        return len(sizes) * torch.nn.functional.cross_entropy(said.flatten(0, 1), labels.flatten())

    def validate(network):
        curriculum.update(accuracies(network, curriculum.sizes))
        passed.append(curriculum.newest - 1)
        return {"N": curriculum.newest}

    options = FitOptions(2000, 0.01, "constant", optimizer="sgd", clip=2.0, validate_every=100, seed=seed)
    fit(network, loss, batch, options, validate=validate, carried={"curriculum": curriculum.state})
    return network, passed


networks, passed = {}, {}
for kind in ("cumulative", "single"):
    networks[kind], passed[kind] = trained(kind)
    tau = single_neuron_timescales(networks[kind]).mean()
    radius = spectral_radius(networks[kind])
    print(f"{kind}: N = {passed[kind][-1]}, mean tau {tau:.2f}, spectral radius {radius:.2f}")

# %%
# Trained on the newest N alone, the network forgets the ones before.

old = {kind: accuracies(network, range(FIRST, passed[kind][-1] + 1)) for kind, network in networks.items()}
for kind, found in old.items():
    print(kind, {size: round(right, 2) for size, right in found.items()})

# %%
# Which neurons hold the memory: a tenth of them is silent, the slowest, or the quickest.

for kind, network in networks.items():
    size = passed[kind][-1]
    order = single_neuron_timescales(network).argsort().tolist()
    for name, silent in (("slowest", order[-10:]), ("quickest", order[:10])):
        with ablated(network, silent):
            print(kind, f"N = {size} without the {name}:", round(accuracies(network, [size])[size], 2))

# %%
# How far each came, and what it still knows.

figure = Figure(figsize=(9, 3.4), layout="constrained")
left, right = figure.subplots(1, 2)
for kind, sizes in passed.items():
    left.plot([100 * number for number in range(1, len(sizes) + 1)], sizes, label=kind)
    right.plot(list(old[kind]), list(old[kind].values()), "o-", label=kind)
left.set(xlabel="steps", ylabel="largest N passed")
right.set(xlabel="N", ylabel="accuracy at the end", ylim=(0.4, 1.02))
left.legend()
figure.savefig("timescales.png", dpi=100)
