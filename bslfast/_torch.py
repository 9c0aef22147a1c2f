"""The private names of torch that the package uses. No other module has any.

A new version of torch may change them: this is the file to look at then.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch._library.autograd import Info, make_autograd_impl
from torch.autograd import forward_ad
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

# Bound, not wrapped: each call of an op asks most of these.
transforms_active: Callable[[], bool] = torch._C._are_functorch_transforms_active
dispatch_modes: Callable[[], int] = torch._C._len_torch_dispatch_stack
tracing_state: Callable[[], Any] = torch._C._get_tracing_state
dispatch_keys: Callable[[Tensor], Any] = torch._C._dispatch_keys
parse_schema: Callable[[str], Any] = torch._C.parse_schema
unflatten: Callable[[Tensor, Any], Any] = torch._C._nn.unflatten_dense_tensors
standard_gamma: Callable[..., Tensor] = torch._standard_gamma


#: What tells whether torch watches calls: functions without arguments, and modules with flags.
WATCHERS = (transforms_active, dispatch_modes, tracing_state, torch.compiler, forward_ad)


def has_tangents() -> bool:
    """Whether forward-mode differentiation is active."""
    return forward_ad._current_level >= 0


def is_batched(tensor: Tensor) -> bool:
    """Whether a tensor is a batch of vmap or of is_grads_batched, or wrapped by torch.func."""
    functorch = torch._C._functorch
    return functorch.is_legacy_batchedtensor(tensor) or functorch.is_functorch_wrapped_tensor(
        tensor
    )


def can_be_read(tensor: Tensor) -> bool:
    """Whether a tensor's numbers may decide what runs: it is on the CPU, no batch, not traced."""
    if torch.compiler.is_compiling() or dispatch_modes() or tracing_state():
        return False
    functorch = torch._C._functorch
    while functorch.is_gradtrackingtensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return type(tensor) is Tensor and tensor.device.type == "cpu" and not is_batched(tensor)


def is_zero_tensor(tensor: Tensor) -> bool:
    """Whether a tensor stands for zeros without memory."""
    return tensor._is_zerotensor()


def autograd_kernel(
    operator: Any, backward: Callable[..., Any], setup_context: Callable[..., Any]
) -> Callable[..., Any]:
    """What ``torch.library.register_autograd`` registers for an operator."""
    return make_autograd_impl(operator, Info(backward, setup_context))


def global_hooks() -> tuple[dict[Any, Any], ...]:
    """The hooks of all modules together, dictionaries that stay the same."""
    module = torch.nn.modules.module
    return (
        module._global_backward_pre_hooks,
        module._global_backward_hooks,
        module._global_forward_hooks,
        module._global_forward_pre_hooks,
    )


def optimizer_hooks() -> tuple[dict[Any, Any], ...]:
    """The hooks of all optimisers together."""
    return _global_optimizer_pre_hooks, _global_optimizer_post_hooks


def has_hooks(tensor: Tensor) -> bool:
    """Whether something is called with the gradient of a tensor."""
    return bool(tensor._backward_hooks or tensor._post_accumulate_grad_hooks)


def uncompiled() -> AbstractContextManager[Any]:
    """Inside, what ``torch.compile`` has made runs as it was written."""
    # The compiler takes seconds to import; without it nothing has been compiled.
    if "torch._dynamo" not in sys.modules:
        return contextlib.nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance
