"""The closed-form line: ridge regression of what follows on what was before, the same for all variates."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from learnsolve.forecasting.windows import Range, errors, windows

PENALTIES = (1e1, 3e1, 1e2, 3e2, 1e3, 3e3, 1e4, 3e4, 1e5)


@dataclass(frozen=True, eq=False)
class Ridge:
    r"""A linear forecast of each variate from its own past, from its last value on.

    .. math:: \hat y = x_L + W^T (x - x_L)

    Attributes
    ----------
    weights : (look-back, horizon) Tensor
    penalty : float
        With which they were found.
    error : float
        Its mean squared error on the validation part.
    """

    weights: Tensor
    penalty: float
    error: float

    def __call__(self, x: Tensor) -> Tensor:
        """Of (..., look-back) what follows, (..., horizon)."""
        last = x[..., -1:]
        return last + (x - last) @ self.weights.to(x)


def fit_ridge(
    values: Tensor,
    look_back: int,
    horizon: int,
    train: Range,
    valid: Range,
    penalties: Sequence[float] = PENALTIES,
    chunk: int = 512,
) -> Ridge:
    r"""Ridge regression on windows of the training part; the penalty is the best on the validation part.

    .. math:: W = (X^T X + \lambda I)^{-1} X^T Y

    Rows of X and Y are windows of all variates less their last value.

    Parameters
    ----------
    values : (T, V) Tensor
        Variates on a common scale.
    look_back, horizon : int
    train, valid : (int, int)
        Times of the targets, as of `learnsolve.forecasting.windows.windows`.
    penalties : sequence of float
        Positive, to choose from.
    chunk : int
        Windows at a time.

    Returns
    -------
    Ridge

    Raises
    ------
    ValueError
        A penalty is not positive, or a part has no window.

    References
    ----------
    Hoerl and Kennard, *Ridge regression: biased estimation for nonorthogonal problems*, Technometrics 12,
    1970.

    Examples
    --------
    >>> import torch
    >>> from learnsolve.forecasting import fit_ridge
    >>> values = torch.sin(torch.arange(200.0) / 3)[:, None]
    >>> fit_ridge(values, 20, 5, (0, 150), (150, 200), (1e-3,)).error < 1e-5
    True
    """
    if not penalties or min(penalties) <= 0:
        raise ValueError(f"penalties are {tuple(penalties)}; positive numbers are accepted")
    gram = values.new_zeros(look_back, look_back, dtype=torch.float64)
    right = values.new_zeros(look_back, horizon, dtype=torch.float64)
    for part in windows(values, look_back, horizon, train).split(chunk):
        moved = (part - part[..., look_back - 1 : look_back]).reshape(-1, look_back + horizon).double()
        x = moved[:, :look_back]
        gram += x.mT @ x
        right += x.mT @ moved[:, look_back:]
    rates, basis = torch.linalg.eigh(gram)
    turned = basis.mT @ right
    tried = []
    for penalty in penalties:
        weights = (basis @ (turned / (rates.clamp(min=0) + penalty).unsqueeze(1))).to(values.dtype)
        line = Ridge(weights, float(penalty), 0.0)
        tried.append(Ridge(weights, float(penalty), errors(line, values, look_back, horizon, valid).mse))
    return min(tried, key=lambda one: one.error)
