"""Relaxed Bernoulli distributions (binary Concrete): reparametrised samples."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from bslfast import _checks
from bslfast.functional._pointwise import PointwiseOp, parameter


def relaxed_bernoulli_rsample(
    logits: Tensor,
    temperature: Tensor | float,
    *,
    hard: bool = False,
    sample_shape: Sequence[int] = (),
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> Tensor:
    r"""Samples in (0, 1) that tend to Bernoulli samples as the temperature falls.

    .. math:: \sigma\left(\frac{l + \log u - \log(1 - u)}{\tau}\right), \quad u \sim U(0, 1)

    Backward draws u again. :func:`bslfast.functional.logistic_log_prob` at the logit of a sample,
    with loc = logits / temperature and scale = 1 / temperature, is the log density of that logit.

    Args:
        logits: of the probability of 1, any shape.
        temperature: > 0; a number, rounded to the dtype, or a tensor that broadcasts with
            ``logits``.
        hard: round the values to 0 and 1, exactly a Bernoulli sample of these logits, and give
            them the gradients of what was rounded (straight-through; such gradients are biased).
        sample_shape, seed, stream: as in :func:`bslfast.functional.normal_rsample`.

    Returns:
        Samples of shape ``[*sample_shape, *broadcast(logits, temperature)]``. Gradients reach both
        arguments, if they are tensors.

    Raises:
        TypeError: an argument is not a floating-point tensor (or a number), dtypes differ, or
            ``hard`` is not a bool.
        ValueError: shapes do not broadcast, devices differ, or a temperature <= 0 (of a tensor in
            eager mode on the CPU).

    Source: Maddison, Mnih and Teh, "The Concrete distribution" (2017, arXiv:1611.00712);
    straight-through: Jang, Gu and Poole, "Categorical reparameterization with Gumbel-softmax"
    (2017, arXiv:1611.01144).

    >>> import torch, bslfast.functional as BF
    >>> logits = torch.zeros(4000, requires_grad=True)
    >>> x = BF.relaxed_bernoulli_rsample(logits, 0.5, hard=True, seed=0)
    >>> x.sum().backward()
    >>> x.unique(), bool((x.mean() - 0.5).abs() < 0.05), bool((logits.grad > 0).all())
    (tensor([0., 1.], grad_fn=<Unique2Backward0>), True, True)
    """
    logits = _checks.operand("logits", logits)
    sample: Tensor = _rsample(
        logits,
        parameter("temperature", temperature, logits, above=0.0),
        hard=hard,
        sample_shape=sample_shape,
        seed=seed,
        stream=stream,
    )
    return sample


_rsample = PointwiseOp(
    "relaxed_bernoulli_rsample",
    ("logits", "temperature"),
    options={"hard": (False, True)},
    domains={"temperature": "numbers > 0"},
)
