"""Maps by Bernstein polynomials, with their log-determinants."""

from __future__ import annotations

from torch import Tensor

from bslfast import _checks
from bslfast.functional._rows import RowOp


def bernstein_transform(
    x: Tensor,
    raw_coefficients: Tensor,
    *,
    bound: float = 3.0,
    inverse: bool = False,
    reduction: str = "row",
) -> tuple[Tensor, Tensor]:
    r"""A rising Bernstein polynomial with linear tails, or its inverse; log-determinant.

    Each element of ``x`` has a polynomial of degree n of its own, with coefficients

    .. math:: \theta_0 = r_0, \qquad \theta_k = \theta_{k-1} + \mathrm{softplus}(r_k)

    from its row r of ``raw_coefficients``. With t = (x + bound) / (2 bound), on [-bound, bound]

    .. math:: y = \sum_{k=0}^n \theta_k \binom{n}{k} t^k (1 - t)^{n-k}, \qquad
              \frac{dy}{dx} = \frac{n}{2\, \mathrm{bound}} \sum_{k=0}^{n-1}
              (\theta_{k+1} - \theta_k) \binom{n-1}{k} t^k (1 - t)^{n-1-k}

    and outside its tangents at the ends, so that it maps the real line onto itself and has a
    continuous derivative. It goes from :math:`\theta_0` at -bound to :math:`\theta_n` at bound, and
    is the identity for :math:`\theta_k = -bound + 2\, bound\, k / n`, which is r_0 = -bound and
    all others log(expm1(2 bound / n)).

    Computed in float64, whatever the dtype, from float32's softplus; all terms but r_0 are
    positive, and nothing cancels. Slopes may be of all sizes, also such that softplus underflows
    (steps count as 1e-290 at least, as 1e290 at most). The inverse is found by Newton's method
    between bounds that always hold, and has the gradients of the exact solution. Backward computes
    from the arguments: nothing else is kept.

    Args:
        x: what is mapped, [..., D]; with ``inverse``, the y to be mapped back.
        raw_coefficients: r, [..., D, n + 1], of degree 1 <= n <= 63. Leading dimensions broadcast
            with the shape of ``x``.
        bound: half the length of the interval that the polynomial acts on, > 0.
        inverse: compute the inverse map. ``log_det`` is that of the map computed.
        reduction: of the log-determinant: ``"row"`` sums over the last dimension, ``"none"`` keeps
            one value per element, ``"sum"`` one sum.

    Returns:
        (y, log_det): y has the shape that ``x`` and the leading dimensions broadcast to, log_det
        what is left of it.

    Raises:
        TypeError: an argument is not a floating-point tensor, dtypes differ, inverse is not a bool
            or bound not a number.
        ValueError: shapes or devices do not match, too many coefficients or fewer than two, bound
            not above 0, an unknown reduction, or ``"row"`` of an ``x`` without dimensions.

    Source: Sick, Hothorn and Dürr, "Deep transformation models" (2020, arXiv:2004.00464);
    Ramasinghe et al., "Robust normalizing flows using Bernstein-type polynomials" (2021,
    arXiv:2102.03509).

    >>> import torch, bslfast.functional as BF
    >>> x, raw = torch.tensor([[-4.0, 0.5, 2.0]]), torch.randn(1, 3, 17)
    >>> y, log_det = BF.bernstein_transform(x, raw)
    >>> back, _ = BF.bernstein_transform(y, raw, inverse=True)
    >>> log_det.shape, torch.allclose(back, x, atol=1e-5)
    (torch.Size([1]), True)
    """
    result: tuple[Tensor, Tensor] = _bernstein_transform(
        x,
        raw_coefficients,
        bound=_checks.number("bound", bound, above=0.0),
        inverse=inverse,
        reduction=reduction,
    )
    return result


_bernstein_transform = RowOp(
    "bernstein_transform",
    ("x", "raw_coefficients"),
    options={"inverse": (False, True)},
    numbers=("bound",),
    what="coefficients",
    least=2,
)
#: The coefficients of a polynomial of degree 63.
MAX_COEFFICIENTS = _bernstein_transform.longest
