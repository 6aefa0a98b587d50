"""The U-Net that refines sensitivities."""

import torch
from torch import Tensor, nn


def _twice(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in (inputs, outputs):
        layers += [
            nn.Conv2d(size, outputs, 3, padding=1, bias=False),
            nn.InstanceNorm2d(outputs),
            nn.LeakyReLU(0.2),
        ]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Convolutions at several resolutions, from two channels to two.

    Parameters
    ----------
    filters : int
        Of the finest resolution; doubled in each coarser one.
    pools : int
        How often the resolution is halved. Images are padded to what that needs.

    References
    ----------
    Ronneberger, Fischer and Brox, *U-Net: convolutional networks for biomedical image segmentation*, MICCAI
    2015; Sriram and others, *End-to-end variational networks for accelerated MRI reconstruction*, MICCAI
    2020.

    Examples
    --------
    >>> UNet(4, 2)(torch.zeros(1, 2, 13, 10)).shape
    torch.Size([1, 2, 13, 10])
    """

    def __init__(self, filters: int = 8, pools: int = 4) -> None:
        super().__init__()
        sizes = [filters << level for level in range(pools + 1)]
        self.down = nn.ModuleList([_twice(a, b) for a, b in zip([2, *sizes[:-2]], sizes[:-1], strict=True)])
        self.bottom = _twice(sizes[-2], sizes[-1])
        self.up = nn.ModuleList(
            [
                nn.Sequential(
                    nn.ConvTranspose2d(2 * size, size, 2, stride=2, bias=False),
                    nn.InstanceNorm2d(size),
                    nn.LeakyReLU(0.2),
                )
                for size in reversed(sizes[:-1])
            ]
        )
        self.merge = nn.ModuleList([_twice(2 * size, size) for size in reversed(sizes[:-1])])
        self.last = nn.Conv2d(filters, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """From (N, 2, height, width) to the same shape."""
        height, width = x.shape[-2:]
        # Statistics of a single pixel would be none, so that the coarsest has two at least.
        block = 1 << len(self.down)
        tall, wide = (max(2 * block, -(-n // block) * block) for n in (height, width))
        x = nn.functional.pad(x, (0, wide - width, 0, tall - height))
        kept = []
        for down in self.down:
            x = down(x)
            kept.append(x)
            x = nn.functional.avg_pool2d(x, 2)
        x = self.bottom(x)
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([up(x), kept.pop()], 1))
        return self.last(x)[..., :height, :width]
