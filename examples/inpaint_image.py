"""
An image from a fifth of its pixels
===================================

Facades, screens and cloth are close to matrices of low rank. This image is drawn, with some noise;
four fifths of its pixels are lost.
"""

import numpy as np
from matplotlib.figure import Figure

import learnsolve
from learnsolve.problems.images import image_mask

y, x = np.mgrid[0:1:240j, 0:1:320j]
image = 0.5 + 0.2 * np.sign(np.sin(25 * x)) * np.sign(np.sin(18 * y)) + 0.2 * np.cos(3 * x) * y
image += 0.1 * np.exp(-20 * (x - 0.6) ** 2) * np.sin(9 * y) + 0.02 * np.random.default_rng(0).standard_normal(
    x.shape
)

masked = image_mask(image, 0.2, seed=0)
res = learnsolve.complete((masked.rows, masked.cols, masked.values), shape=masked.shape, rtol=1e-4)
print(res)
print(f"rank {res.rank}; RMSE on the lost pixels {masked.rmse(res.U, res.V):.3f} (noise: 0.02)")

# %%
# What is known, what was found, and the truth.
known = np.full(image.shape, np.nan)
known[masked.rows, masked.cols] = masked.values
figure = Figure(figsize=(11, 3), layout="constrained")
axes = figure.subplots(1, 3)
for ax, picture, title in zip(
    axes, (known, res.to_dense(), image), ("known", "completed", "truth"), strict=True
):
    ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
    ax.set_title(title)
    ax.axis("off")
figure.savefig("inpaint_image.png", dpi=120)
