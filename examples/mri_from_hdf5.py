"""
An MRI scan from an HDF5 file
=============================

A scan of eight coils is simulated and written in fastMRI's layout; then it is read as any file would be. Of
four lines of k-space only one is used, and the images that come of it are compared with that of all lines.
"""

import tempfile
from pathlib import Path

import torch
from matplotlib.figure import Figure

from learnsolve import mri
from learnsolve.datasets.kspace import open_kspace
from learnsolve.datasets.kspace_writers import write_kspace
from learnsolve.problems.scans import Volume

volume = Volume((128, 128), coils=8, slices=3, noise=0.01, seed=8)
path = Path(tempfile.mkdtemp()) / "scan.h5"
write_kspace(path, (volume[i].kspace for i in range(3)), (3, 8, 128, 128))

with open_kspace(path) as scan:
    print(scan.verdict())
    kspace = torch.from_numpy(scan[1])

# %%
# A file's name as the seed of the mask is fastMRI's rule: a volume always gets the same lines.
sampled = mri.Sampling("random", 4, centre=0.12, axis=-2, seed=path.name).mask((128, 128))
undersampled = torch.where(sampled, kspace, 0)
reference = mri.zero_filled(kspace).numpy()
inside = mri.foreground(reference)
print(f"factor {mri.factor(sampled):.2f}")

# %%
# The weights of the penalties come from the noise at k-space's rim. The network is checked by samples that it
# has not seen: its score says how well it foretells them, beside the image that it began with.
images = {}
for method in ("zero-filled", "cg-sense", "l1-wavelet", "recurrentvarnet"):
    res = mri.reconstruct(undersampled, method, sampled=sampled)
    images[method] = res.x.abs().numpy()
    error = mri.nmse(reference, images[method], where=inside)
    print(f"{method:16} NMSE of the foreground {error:.4f}, {res.seconds:.2f} s")
print(res.extras["scores"][0])

# %%
# Above the images, below their errors, ten times as bright.
figure = Figure(figsize=(12, 6), layout="constrained")
rows = figure.subplots(2, 4)
for (method, image), above, below in zip(images.items(), *rows, strict=True):
    above.imshow(image, cmap="gray", vmin=0, vmax=reference.max())
    above.set_title(method)
    below.imshow(abs(image - reference), cmap="gray", vmin=0, vmax=0.1 * reference.max())
    above.axis("off")
    below.axis("off")
figure.savefig("mri_from_hdf5.png", dpi=100)
