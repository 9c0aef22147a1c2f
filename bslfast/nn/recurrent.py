"""Bayesian recurrent layers: weights drawn once for a whole sequence."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from bslfast import _checks
from bslfast._torch import forget_flat, make_flat, use_attributes
from bslfast.nn.layer import BayesianLayer, Settings


class _Recurrent(BayesianLayer):
    """What recurrent layers have in common: lists of weights, and two outputs."""

    #: Whether :meth:`forward` returns the final state, too, as the torch class does.
    return_state: bool = True
    weight_ih_l0_loc: Tensor
    input_size: int
    hidden_size: int
    num_layers: int
    batch_first: bool
    bidirectional: bool

    # torch's own takes anything: *args and **kwargs.
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        return_state: bool = False,
        **options: Any,
    ) -> None:
        _checks.flag("return_state", return_state)
        super().__init__(
            input_size=input_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            device=device,
            dtype=dtype,
            **options,
        )
        self.return_state = return_state

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Show the arguments of :class:`BayesianLayer` in the place of ``options``."""
        super().__init_subclass__(**kwargs)
        shown = dict(inspect.signature(cls).parameters)
        if shown.pop("options", None) is not None:
            init: Any = BayesianLayer.__init__
            every = inspect.signature(init).parameters.values()
            shown.update({p.name: p for p in every if p.kind is p.KEYWORD_ONLY})
            cls.__signature__ = inspect.Signature(list(shown.values()))  # type: ignore[attr-defined]

    @classmethod
    def check_arguments(cls, given: Mapping[str, Any]) -> None:
        """Raise TypeError or ValueError for arguments of the constructor that are wrong."""
        super().check_arguments(given)
        _checks.fraction("dropout", given["dropout"])
        size, most = given.get("proj_size", 0), given["hidden_size"] - 1
        if _checks.integer("proj_size", size, 0) > most:
            raise ValueError(f"proj_size: expected at most hidden_size - 1, {most}, got {size}")

    def make_bayesian(self, settings: Settings) -> None:
        """Put the parameters of the posteriors in the place of those of the torch class."""
        # torch computes with this list. It is a stand-in's, see below.
        forget_flat(self)
        super().make_bayesian(settings)

    def _stand_in(self, tensors: Sequence[Tensor]) -> Any:
        stand_in = super()._stand_in(tensors)
        use_attributes(stand_in)  # not its modules, which a prior is in
        return stand_in

    def check_inputs(self, *inputs: Any, **options: Any) -> None:
        """Raise TypeError or ValueError if the first is no sequence of the layer's features."""
        x: Any = inputs[0] if inputs else options.get("input")
        packed = isinstance(x, PackedSequence)
        x = _checks.operand("x", x.data if packed else x)
        _checks.alike("x", x, "weight_ih_l0_loc", self.weight_ih_l0_loc)
        if x.dim() not in ((2,) if packed else (2, 3)) or x.shape[-1] != self.input_size:
            first = "batch, length" if self.batch_first else "length, batch"
            raise ValueError(
                f"x: expected shape [{first}, {self.input_size}] or [length, {self.input_size}], "
                f"got {list(x.shape)}"
            )
        state: Any = inputs[1] if len(inputs) > 1 else options.get("hx")
        if state is not None:
            given: Any = inputs[0] if inputs else options["input"]
            batch = [int(given.batch_sizes[0])] if packed else []
            if not packed and x.dim() == 3:
                batch = [x.shape[0 if self.batch_first else 1]]
            self._check_state(state, batch)

    def _check_state(self, state: Any, batch: list[int]) -> None:
        """Raise TypeError or ValueError if the state at the start is none of the layer."""
        shapes = [
            [self.num_layers * (2 if self.bidirectional else 1), *batch, size]
            for size in self._state_sizes()
        ]
        pair = len(shapes) > 1
        what = f"a {'pair of tensors' if pair else 'tensor'} of shape " + " and ".join(
            map(str, shapes)
        )
        parts = state if pair else (state,)
        if not isinstance(parts, tuple | list) or not all(isinstance(t, Tensor) for t in parts):
            raise TypeError(f"hx: expected {what}, got {_checks.describe(state)}")
        if [list(t.shape) for t in parts] != shapes:
            got = " and ".join(str(list(t.shape)) for t in parts)
            raise ValueError(f"hx: expected {what}, got {got}")

    def _state_sizes(self) -> tuple[int, ...]:
        """How many numbers each tensor of the state has for a sequence."""
        return (self.hidden_size,)

    def function(self, drawn: tuple[Tensor, ...], *inputs: Any, **options: Any) -> Any:
        """The outputs for these weights, with the final state if that is wanted."""
        both: Any = super().function(drawn, *inputs, **options)
        return both if self.return_state else both[0]

    def output(self, drawn: tuple[Tensor, ...], x: Tensor) -> Tensor:
        """The outputs for one input, without the state."""
        outputs: Tensor = super().function(drawn, x)[0]
        return outputs

    def deterministic_twin(self) -> nn.Module:
        """The torch class's own layer, with copies of the means as its parameters.

        A hook takes the state away from what it returns if this layer returns none.
        """
        twin: Any = super().deterministic_twin()
        make_flat(twin)
        if not twin.__dict__.pop("return_state", True):
            twin.register_forward_hook(_without_state)
        return twin  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return super().extra_repr() + (", return_state=True" if self.return_state else "")


def _without_state(module: nn.Module, inputs: Any, outputs: Any) -> Any:
    return outputs[0]


class BayesLSTM(_Recurrent, nn.LSTM):
    r"""``torch.nn.LSTM`` with a distribution for every weight and bias.

    Each forward pass draws the weights once, for all steps of all sequences in the batch, unless
    :func:`bslfast.nn.one_draw` has. ``torch.compile`` breaks its graph here, as at torch's layer.
    With one draw of W and b, at each step

    .. math::

        (i, f, g, o) = W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh}, \quad
        c_t = \sigma(f) c_{t-1} + \sigma(i) \tanh(g), \quad h_t = \sigma(o) \tanh(c_t)

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size,
            device, dtype: as of ``torch.nn.LSTM``.
        return_state: whether the final state is returned, too, as torch does. Without it the layer
            fits into ``torch.nn.Sequential``. A layer made by :func:`bslfast.nn.to_bayesian`
            returns it, as the model around it expects that.
        posterior, prior, prior_loc, prior_scale, init_scale, parametrization: as in
            :class:`bslfast.nn.BayesianLayer`; weights have torch's names, as ``weight_ih_l0``.

    Shape: x [length, batch, input_size], or [batch, length, input_size] if ``batch_first``, also
    without batch, or a ``PackedSequence``; then perhaps the state at the start, (h, c), each
    [layers and directions, batch, ...]. Returns [length, batch, directions * hidden_size], or
    (that, (h, c)) if ``return_state``. ``proj_size``, if positive, is the size of h.

    Parameters: for each of torch's, ``weight_ih_l0_loc``, ``weight_ih_l0_raw_scale`` and so on, of
    its shape.

    Raises:
        TypeError, ValueError: a wrong size, number, parametrization or dtype; a wrong input.

    Source: Fortunato, Blundell and Vinyals, "Bayesian recurrent neural networks" (2017,
    arXiv:1704.02798), section 3.

    >>> import torch, bslfast
    >>> layer = bslfast.nn.BayesLSTM(3, 4, batch_first=True, return_state=True)
    >>> outputs, (h, c) = layer(torch.ones(2, 7, 3))
    >>> outputs.shape, h.shape
    (torch.Size([2, 7, 4]), torch.Size([1, 2, 4]))
    >>> model = torch.nn.Sequential(bslfast.nn.BayesLSTM(3, 4), bslfast.nn.BayesLinear(4, 1))
    >>> model(torch.ones(7, 2, 3)).shape, bool(bslfast.nn.kl(model) > 0)
    (torch.Size([7, 2, 1]), True)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        return_state: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(
            *(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional),
            *(device, dtype),
            return_state=return_state,
            proj_size=proj_size,
            **options,
        )

    def _state_sizes(self) -> tuple[int, ...]:
        """How many numbers h and c have for a sequence."""
        return self.proj_size or self.hidden_size, self.hidden_size


class BayesGRU(_Recurrent, nn.GRU):
    r"""``torch.nn.GRU`` with a distribution for every weight and bias.

    Each forward pass draws the weights once, for all steps of all sequences in the batch, unless
    :func:`bslfast.nn.one_draw` has. ``torch.compile`` breaks its graph here, as at torch's layer.
    With one draw of W and b, at each step

    .. math::

        r, z &= \sigma(W_{i} x_t + b_{i} + W_{h} h_{t-1} + b_{h}) \\
        n &= \tanh(W_{in} x_t + b_{in} + r (W_{hn} h_{t-1} + b_{hn})), \quad
        h_t = (1 - z) n + z h_{t-1}

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device,
            dtype: as of ``torch.nn.GRU``.
        return_state: whether the final state is returned, too, as torch does. Without it the layer
            fits into ``torch.nn.Sequential``. A layer made by :func:`bslfast.nn.to_bayesian`
            returns it, as the model around it expects that.
        posterior, prior, prior_loc, prior_scale, init_scale, parametrization: as in
            :class:`bslfast.nn.BayesianLayer`; weights have torch's names, as ``weight_ih_l0``.

    Shape: x [length, batch, input_size], or [batch, length, input_size] if ``batch_first``, also
    without batch, or a ``PackedSequence``; then perhaps the state at the start, h [layers and
    directions, batch, hidden_size]. Returns [length, batch, directions * hidden_size], or
    (that, h) if ``return_state``.

    Parameters: for each of torch's, ``weight_ih_l0_loc``, ``weight_ih_l0_raw_scale`` and so on, of
    its shape.

    Raises:
        TypeError, ValueError: a wrong size, number, parametrization or dtype; a wrong input.

    Source: Fortunato, Blundell and Vinyals, "Bayesian recurrent neural networks" (2017,
    arXiv:1704.02798), section 3; the cell by Cho et al., "Learning phrase representations using
    RNN encoder-decoder" (2014, arXiv:1406.1078).

    >>> import torch, bslfast
    >>> layer = bslfast.nn.BayesGRU(3, 4, num_layers=2, bidirectional=True)
    >>> layer(torch.ones(7, 2, 3)).shape
    torch.Size([7, 2, 8])
    """
