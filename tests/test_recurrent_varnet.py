"""RecurrentVarNet: its size, its equations, its gradients."""

import numpy as np
import pytest
import torch

from learnsolve.mri.recurrent_varnet import RecurrentVarNetOptions
from learnsolve.mri.unet import UNet
from tests.mri_cases import scan


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, 7_403_322),
        ({"refine": False}, 6_918_424),
        ({"refine": False, "shared": True}, 994_051),
        ({"refine": False, "steps": 11, "layers": 3}, 6_727_841),
        ({"refine": False, "hidden": 96, "layers": 3}, 2_827_320),
        ({"refine": False, "initialiser": False, "steps": 15, "hidden": 64}, 3_214_125),
    ],
)
def test_sizes_are_the_published_ones(options, size):
    assert count(RecurrentVarNetOptions(**options).build()) == size


def test_the_refinement_has_its_size():
    assert count(UNet()) == 484_898


def convolved(x, layer, dilation):
    """A convolution by sums over shifted copies, the rim repeated."""
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    half = dilation * (weight.shape[-1] // 2)
    _, height, width = x.shape
    padded = np.pad(x, ((0, 0), (half, half), (half, half)), mode="edge")
    found = np.tile(bias[:, None, None], (1, height, width)).astype(np.float64)
    for a in range(weight.shape[-2]):
        for b in range(weight.shape[-1]):
            part = padded[:, a * dilation : a * dilation + height, b * dilation : b * dilation + width]
            found += np.einsum("oc,cyx->oyx", weight[:, :, a, b], part)
    return found


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def relu(x):
    return np.maximum(x, 0)


def inverse(y):
    return np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(y, (-2, -1)), norm="ortho"), (-2, -1))


def forward(x):
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(x, (-2, -1)), norm="ortho"), (-2, -1))


def pair(image):
    return np.stack([image.real, image.imag])


def slow(network, kspace, sampled, maps):
    """The equations one by one, for one image."""
    samples = np.where(sampled, kspace, 0)
    sizes = np.sort(np.abs(samples).ravel())
    scale = sizes[round(0.99 * sizes.size) - 1]
    samples = samples / scale
    maps = maps / np.sqrt((np.abs(maps) ** 2).sum(0))
    x = pair(forward((maps.conj() * inverse(samples)).sum(0)))
    features = []
    for block, dilation in zip(network.initialiser.blocks, (1, 1, 2, 4), strict=True):
        x = relu(convolved(x, block[1], dilation))
        features.append(x)
    seen = np.concatenate(features[1:])
    states = [relu(convolved(seen, head, 1)) for head in network.initialiser.heads]
    y = samples
    for step in network.blocks:
        unit, x = step.unit, pair((maps.conj() * inverse(y)).sum(0))
        for layer in range(len(states)):
            c = relu(convolved(x, unit.blocks[layer][1], 2 if layer == 1 else 1))
            both = np.concatenate([c, states[layer]])
            u, r = (sigmoid(convolved(both, gate[layer], 1)) for gate in (unit.update, unit.reset))
            new = np.tanh(convolved(np.concatenate([c, states[layer] * r]), unit.proposal[layer], 1))
            states[layer] = states[layer] * (1 - u) + new * u
            x = relu(states[layer])
        w = convolved(x, unit.blocks[-1][1], 2 if len(states) == 1 else 1)
        y = y - step.alpha.item() * np.where(sampled, y - samples, 0) + forward(maps * (w[0] + 1j * w[1]))
    return scale * np.sqrt((np.abs(inverse(y)) ** 2).sum(0))


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_forward_pass_is_its_equations(layers):
    torch.manual_seed(0)
    network = RecurrentVarNetOptions(steps=3, hidden=5, layers=layers, refine=False).build().double()
    with torch.no_grad():
        for step in network.blocks:
            step.alpha += 0.3 * torch.randn(())
    _, maps, full = scan((9, 7), 3, dtype=torch.complex128)
    sampled = torch.tensor([True, False, True, True, True, False, True])
    found = network(full[None], sampled, maps[None])[0].detach().numpy()
    np.testing.assert_allclose(found, slow(network, full.numpy(), sampled.numpy(), maps.numpy()), rtol=1e-9)


def test_batches_scales_and_layouts():
    torch.manual_seed(0)
    network = RecurrentVarNetOptions(steps=2, hidden=4, layers=2).build()
    scans = [scan((20, 17), 3, seed=seed) for seed in range(2)]
    full, maps = torch.stack([one[2] for one in scans]), torch.stack([one[1] for one in scans])
    sampled = torch.arange(17) % 2 == 0
    with torch.no_grad():
        found = network(full, sampled, maps)
        one = network(full[1:], sampled, maps[1:])
        torch.testing.assert_close(found[1:], one, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(network(1e-4 * full, sampled, maps), 1e-4 * found, rtol=1e-3, atol=1e-8)
    plain = RecurrentVarNetOptions(steps=2, hidden=4, layers=2, refine=False, initialiser=False).build()
    with torch.no_grad():
        centred = plain(full, sampled, maps)
        corner = [torch.fft.ifftshift(part, (-2, -1)) for part in (full, sampled.expand(20, 17), maps)]
        found = plain(*corner, centred=False)
    assert found.shape == centred.shape
    inner = (slice(None), slice(3, 7), slice(3, 6))
    assert torch.isfinite(found[inner]).all()


def test_memory_is_saved_without_another_gradient():
    torch.manual_seed(0)
    network = RecurrentVarNetOptions(steps=2, hidden=4, layers=2).build()
    _, maps, full = scan((16, 16), 2)
    sampled = torch.arange(16) % 2 == 0
    gradients = []
    for save in (False, True):
        network.zero_grad()
        network(full[None], sampled, maps[None], save_memory=save).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
    # Of so few hidden channels some are never positive.
    assert np.mean([bool(gradient.any()) for gradient in gradients[0]]) > 0.8


def test_gradients_of_k_space():
    torch.manual_seed(0)
    network = RecurrentVarNetOptions(steps=1, hidden=2, layers=1, refine=False).build().double()
    _, maps, full = scan((5, 4), 2, dtype=torch.complex128)
    everywhere = torch.ones(5, 4, dtype=torch.bool)
    assert torch.autograd.gradcheck(
        lambda k: network(k, everywhere, maps[None]), (full[None].clone().requires_grad_(),), atol=1e-4
    )


def test_a_few_steps_of_training_lower_the_error():
    torch.manual_seed(0)
    network = RecurrentVarNetOptions(steps=3, hidden=12, layers=2).build()
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    scans = [scan((32, 28), 4, noise=0.02, seed=seed) for seed in range(3)]
    full, maps = torch.stack([one[2] for one in scans]), torch.stack([one[1] for one in scans])
    image = torch.stack([one[0].abs() for one in scans])
    sampled = torch.arange(28) % 3 == 0
    sampled[10:18] = True
    losses = []
    for _ in range(40):
        loss = (network(full[:2], sampled, maps[:2]) - image[:2]).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        assert torch.isfinite(torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0))
        optimiser.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.7 * losses[0]


def test_what_is_refused():
    for options in ({"steps": 0}, {"hidden": 0}, {"layers": 0}, {"percentile": 0.0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            RecurrentVarNetOptions(**options)
    network = RecurrentVarNetOptions(steps=1, hidden=2, layers=1).build()
    k, everywhere = torch.ones(1, 2, 8, 8, dtype=torch.complex64), torch.ones(8, 8, dtype=torch.bool)
    for arguments in ((k[0], everywhere, k[0]), (k, everywhere, k[:, :1]), (k.real, everywhere, k)):
        with pytest.raises(ValueError, match="are accepted"):
            network(*arguments)
    with pytest.raises(ValueError, match="booleans"):
        network(k, everywhere.float(), k)


def test_mixed_precision_keeps_the_transforms_exact():
    _, maps, full = scan((24, 20), 3)
    sampled = torch.rand(20, generator=torch.Generator().manual_seed(1)).expand(24, 20) < 0.5
    torch.manual_seed(0)
    network = RecurrentVarNetOptions(steps=2, hidden=4, layers=2, coupling=50.0).build()
    given = full[None], sampled, maps[None]
    exact = network(*given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = network(*given)
        mixed.sum().backward()
    assert mixed.dtype == torch.float32
    assert torch.linalg.vector_norm(mixed - exact) < 0.05 * torch.linalg.vector_norm(exact)
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
