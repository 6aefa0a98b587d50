"""Semiseparable triangular matrices: what linear attention multiplies by, and the delta rule solves with."""

import torch
from torch import Tensor

from learnsolve.kernels import attention as kernels
from learnsolve.operators.base import Operator


class Semiseparable(Operator):
    r"""Lower triangular matrices of low rank off the diagonal: :math:`M_{ij} = q_i^T \Lambda_{ij} k_j`.

    :math:`\Lambda_{ij} = \mathrm{diag}(e^{g_{j+1} + \dots + g_i})` for :math:`i \ge j`, one where nothing
    decays. A product takes one pass with a state of K by width, as does a solution with the unit triangular
    matrix :math:`I + \mathrm{stril}(M)` (``unit=True``): with :math:`q = \beta k` that is the delta rule's.

    Parameters
    ----------
    q, k : (batch, time, heads, K) Tensor
        float32 or float64.
    log_decay : (batch, time, heads) or (batch, time, heads, K) Tensor, optional
        :math:`g`, nowhere positive.
    width : int
        Columns: arrays are (batch, time, heads, width).
    unit : bool
        Ones on the diagonal, and of the product what is below.

    Raises
    ------
    ValueError
        Shapes do not fit, or a decay's logarithm is positive.

    References
    ----------
    Vandebril, Van Barel and Mastronardi, *Matrix computations and semiseparable matrices*, volume 1, 2008,
    chapter 4; Yang, Wang, Zhang, Shen and Kim, *Parallelizing linear transformers with the delta rule over
    sequence length*, NeurIPS 2024, section 3.2.

    Examples
    --------
    >>> import torch, learnsolve
    >>> from learnsolve.operators import Semiseparable
    >>> one = torch.ones(1, 3, 1, 1, dtype=torch.float64)
    >>> (Semiseparable(one, one) @ one).flatten().tolist()
    [1.0, 2.0, 3.0]
    >>> res = learnsolve.solve(Semiseparable(one, one, unit=True), one)
    >>> res.x.flatten().tolist(), res.method
    ([1.0, 0.0, 0.0], 'substitution')
    """

    lower_triangular = True

    def __init__(
        self, q: Tensor, k: Tensor, log_decay: Tensor | None = None, *, width: int = 1, unit: bool = False
    ) -> None:
        if q.ndim != 4 or k.shape != q.shape or width < 1:
            found = f"q {tuple(q.shape)}, k {tuple(k.shape)} and width {width}"
            raise ValueError(
                f"{found}; (batch, time, heads, K), the same, and a positive number are accepted"
            )
        if log_decay is not None:
            if log_decay.shape not in (q.shape, q.shape[:3]):
                accepted = f"{tuple(q.shape[:3])} or {tuple(q.shape)}"
                raise ValueError(f"log_decay has shape {tuple(log_decay.shape)}; {accepted} is accepted")
            if bool((log_decay.detach() > 0).any()):
                raise ValueError(
                    f"log_decay is up to {log_decay.max():.3g}; numbers of at most zero are accepted"
                )
        shape = (*q.shape[:3], width)
        super().__init__(shape, shape, q.dtype, q.device)
        self.q, self.k, self.log_decay, self.unit, self.width = q, k, log_decay, unit, width
        self.solvable = unit

    @property
    def _decay(self) -> Tensor | None:
        g = self.log_decay
        return g if g is None or g.ndim == 4 else g.unsqueeze(-1)

    def _pieces(self) -> Tensor:
        batch = torch.arange(self.q.shape[0])
        return torch.stack([batch, 0 * batch, 0 * batch + self.q.shape[1]], 1)

    def _first(self) -> Tensor:
        batch, _, heads, channels = self.q.shape
        return self.q.new_zeros(batch, heads, channels, self.width)

    def _backwards(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """What the adjoint is made of: time runs back, and each decay comes a step later."""
        g = self._decay
        if g is not None:
            g = torch.cat([torch.zeros_like(g[:, :1]), g[:, 1:].flip(1)], 1)
        return self.k.flip(1), self.q.flip(1), g

    def _corrected(self, product: Tensor, x: Tensor) -> Tensor:
        """With ones on the diagonal."""
        if not self.unit:
            return product
        return product + (1 - (self.q.detach() * self.k.detach()).sum(-1, keepdim=True)) * x

    def _apply(self, x: Tensor) -> Tensor:
        product = kernels.attend(self.q, self.k, x, self._decay, self._first(), self._pieces(), 1.0)[0]
        return self._corrected(product, x)

    def _adjoint(self, y: Tensor) -> Tensor:
        q, k, g = self._backwards()
        product = kernels.attend(q, k, y.flip(1), g, self._first(), self._pieces(), 1.0)[0]
        return self._corrected(product.flip(1), y)

    def state(self, x: Tensor) -> Tensor:
        """What a product leaves behind: (batch, heads, K, width), the sum of decayed ``k x'``."""
        return kernels.attend(self.q, self.k, x, self._decay, self._first(), self._pieces(), 1.0)[1]

    def substitute(self, b: Tensor) -> Tensor:
        return kernels.substitute(self.q, self.k, b, self._decay, self._pieces())

    def substitute_adjoint(self, b: Tensor) -> Tensor:
        q, k, g = self._backwards()
        return kernels.substitute(q, k, b.flip(1), g, self._pieces()).flip(1)

    def diagonal(self) -> Tensor:
        ones = self.q.new_ones(self.domain_shape)
        return ones if self.unit else ones * (self.q * self.k).sum(-1, keepdim=True)

    def parameters(self) -> tuple[Tensor, ...]:
        given = (self.q, self.k, self.log_decay)
        return tuple(one for one in given if one is not None)

    def with_parameters(self, parameters: tuple[Tensor, ...]) -> Operator:
        q, k, *g = parameters
        return Semiseparable(q, k, g[0] if g else None, width=self.width, unit=self.unit)

    def cotangents(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        first, pieces, g = self._first(), self._pieces(), self._decay
        last = kernels.attend(self.q, self.k, x, g, first, pieces, 1.0)[1]
        found = kernels.attend_adjoint(
            self.q, self.k, x, g, first, pieces, 1.0, y, last, torch.zeros_like(last)
        )
        dq, dk, _, dg, _ = found
        if self.unit:
            inner = (x * y).sum(-1, keepdim=True)
            dq, dk = dq - inner * self.k.detach(), dk - inner * self.q.detach()
        if self.log_decay is None or dg is None:
            return dq, dk
        return dq, dk, dg.reshape(self.log_decay.shape)

    def _moved(self, device: torch.device, dtype: torch.dtype) -> Operator:
        return self.with_parameters(tuple(one.to(device, dtype) for one in self.parameters()))
