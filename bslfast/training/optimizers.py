"""The optimisers that :func:`bslfast.training.fit` has: torch's, and what they remember."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from bslfast import _checks

OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop")
# What they call the means of gradients and of squared gradients that they keep.
_MEANS = {"adam": "exp_avg", "adamw": "exp_avg", "sgd": "momentum_buffer"}
_MEAN_SQUARES = {"adam": "exp_avg_sq", "adamw": "exp_avg_sq", "rmsprop": "square_avg"}


class Optimizer:
    """One of torch's optimisers, of which each parameter has a state from the start.

    Args:
        name: one of ``OPTIMIZERS``.
        parameters: what it trains.
        lr, weight_decay, momentum: as :func:`bslfast.training.fit` takes them.
        undecayed: those that weight decay is not for.

    Attributes:
        torch: the optimiser.
        mean, mean_square: the names of what it remembers; None if it does not.
        keys: the names of all entries of a parameter's state.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """

    def __init__(
        self,
        name: str,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        weight_decay: float,
        momentum: float,
        undecayed: Iterable[Tensor] = (),
    ) -> None:
        self.name = _checks.choice("optimizer", name, OPTIMIZERS)
        _checks.number("lr", lr, above=0.0)
        _checks.number("weight_decay", weight_decay, minimum=0.0)
        self.momentum = _checks.number("momentum", momentum, minimum=0.0)
        if momentum != 0 and name != "sgd":
            raise ValueError(f"momentum: expected 0 with optimizer={name!r}, got {momentum!r}")
        parameters, others = list(parameters), set(undecayed)
        self._weight_decays = {p: 0.0 if p in others else weight_decay for p in parameters}
        # One group takes less time than two.
        groups: list[Any] = [
            {"params": [p for p, its in self._weight_decays.items() if its == decay]}
            | {"weight_decay": decay}
            for decay in dict.fromkeys(self._weight_decays.values())
        ]
        # fused: one kernel for all parameters, 5 to 10 times cheaper than the loop on small nets.
        fused = all(p.is_floating_point() for p in parameters)
        self.torch: torch.optim.Optimizer
        if name == "rmsprop":
            # It has no such kernel.
            self.torch = torch.optim.RMSprop(groups, lr=lr, foreach=True)
        elif name == "sgd":
            self.torch = torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=fused)
        else:
            kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
            self.torch = kind(groups, lr=lr, fused=fused)
        self.mean = None if name == "sgd" and momentum == 0 else _MEANS.get(name)
        self.mean_square = _MEAN_SQUARES.get(name)
        for parameter in parameters:
            self.torch.state[parameter] = self._begin(parameter)

    @property
    def keys(self) -> tuple[str, ...]:
        step = None if self.name == "sgd" else "step"
        return tuple(key for key in (step, self.mean, self.mean_square) if key is not None)

    @property
    def numbers(self) -> tuple[float, float, float]:
        """The decay of both means, and epsilon; 0 for what there is not."""
        group = self.torch.param_groups[0]
        decay, decay_square = group.get("betas", (self.momentum, group.get("alpha", 0.0)))
        return decay, decay_square, group.get("eps", 0.0)

    def set_rate(self, lr: float) -> None:
        """Set the learning rate of the next step."""
        for group in self.torch.param_groups:
            group["lr"] = lr

    def weight_decays(self, parameters: Iterable[Tensor]) -> list[float]:
        """The weight decay of each parameter; 0 if it is not trained."""
        return [self._weight_decays.get(p, 0.0) for p in parameters]

    def means(self, parameter: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """What it remembers of a parameter."""
        state = self.torch.state[parameter]
        mean = None if self.mean is None else state[self.mean]
        return mean, None if self.mean_square is None else state[self.mean_square]

    def steps(self, parameters: Iterable[Tensor]) -> set[int]:
        """The numbers of steps that it has taken with these parameters, if it counts them."""
        if self.name == "sgd":
            return {0}
        return {int(self.torch.state[p]["step"].item()) for p in parameters}

    def count(self, parameters: Iterable[Tensor], steps: int) -> None:
        """Note that it has taken steps."""
        if self.name != "sgd":
            for parameter in parameters:
                self.torch.state[parameter]["step"] += steps

    def load(self, parameter: Tensor, saved: dict[str, Tensor]) -> None:
        """Take the state of a parameter from a checkpoint."""
        # Kernels need the memory layout of the parameter, which a file does not keep.
        for key, value in self.torch.state[parameter].items():
            value.copy_(saved[key])

    def _begin(self, parameter: Tensor) -> dict[str, Tensor]:
        """The state with which torch begins; for momentum one that is the same."""
        fused = bool(self.torch.param_groups[0].get("fused"))
        state = {}
        for key in self.keys:
            if key == "step":
                dtype = torch.float32 if fused else torch.get_default_dtype()
                state[key] = torch.zeros(
                    (), dtype=dtype, device=parameter.device if fused else None
                )
            else:
                state[key] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state
