"""
Averages, and convolutions in their place
=========================================

MEGA smooths tokens by exponential moving averages before they attend within chunks; TCNCA puts dilated
convolutions in their place. Both look far back, at a cost that grows as the length, and both are faster than
transforms.
"""

import time

import torch
from matplotlib.figure import Figure

from learnsolve.sequence import moving_average
from learnsolve.sequence.layers.mega import MovingAverage
from learnsolve.sequence.layers.tcnca import DilatedConvolutions

torch.manual_seed(0)
torch.set_num_threads(1)
average, convolutions = MovingAverage(64), DilatedConvolutions(64, taps=9, levels=3, dilation=4)

# %%
# What one token does to those that follow, in three channels; before training.

impulse = torch.zeros(1, 200, 64)
impulse[0, 0] = 1
figure = Figure(figsize=(10, 3.6), layout="constrained")
left, right = figure.subplots(1, 2)
with torch.no_grad():
    for channel in range(3):
        color = f"C{channel}"
        left.plot(average(impulse)[0][0, 1:, channel], color=color, label="average" if not channel else None)
        left.plot(
            convolutions(impulse)[0][0, 1:, channel],
            ":",
            color=color,
            label="convolutions" if not channel else None,
        )
left.set(xlabel="tokens later", xscale="symlog", title=f"convolutions look back {convolutions.span} tokens")
left.legend()

# %%
# Time forward, of 64 channels: the averages in one pass, by transforms, and the convolutions.

p = torch.sigmoid(average.delta)
q, c = 1 - p * torch.sigmoid(average.alpha), average.gamma * p * average.beta / 4
tasks = {
    "average, one pass": lambda x: moving_average(x, q, c),
    "average, transforms": lambda x: moving_average(x, q, c, method="fft"),
    "convolutions": convolutions,
}
lengths = [256, 1024, 4096, 16384]
for name, task in tasks.items():
    seconds = []
    for length in lengths:
        x = torch.randn(1, length, 64)
        with torch.no_grad():
            task(x)
            began = time.process_time()
            task(x)
            seconds.append(time.process_time() - began)
    print(f"{name}: {seconds[-1] * 1000:.1f} ms at {lengths[-1]} tokens")
    right.loglog(lengths, seconds, marker="o", label=name)
right.set(xlabel="length", ylabel="seconds")
right.legend()
figure.savefig("receptive_field.png", dpi=100)
