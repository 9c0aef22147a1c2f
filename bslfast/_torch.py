"""The private names of torch that the package uses. No other module has any.

A new version of torch may change them: this is the file to look at then.
"""

from __future__ import annotations

import contextlib
import operator
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch._library.autograd import Info, make_autograd_impl
from torch.autograd import forward_ad
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode

# Bound, not wrapped: each call of an op asks most of these.
transforms_active: Callable[[], bool] = torch._C._are_functorch_transforms_active
dispatch_modes: Callable[[], int] = torch._C._len_torch_dispatch_stack
tracing_state: Callable[[], Any] = torch._C._get_tracing_state
dispatch_keys: Callable[[Tensor], Any] = torch._C._dispatch_keys
parse_schema: Callable[[str], Any] = torch._C.parse_schema
unflatten: Callable[[Tensor, Any], Any] = torch._C._nn.unflatten_dense_tensors
standard_gamma: Callable[..., Tensor] = torch._standard_gamma
#: The module of DistributedDataParallel that is in its forward pass, or None.
active_ddp: Callable[[], Any] = nn.parallel.DistributedDataParallel._get_active_ddp_module


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


#: How often a tensor has been changed in place.
version_of: Callable[[Tensor], int] = operator.attrgetter("_version")
#: The attributes in which a module keeps its parameters and its parts, for where a call would cost.
PARAMETERS, MODULES = "_parameters", "_modules"
#: That in which a module that ``torch.compile`` has made keeps what it was made of.
COMPILED_FROM = "_orig_mod"


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """The dictionary in which a module keeps its parameters, without those of its parts."""
    return module._parameters


def own_modules(module: nn.Module) -> dict[str, nn.Module | None]:
    """The dictionary in which it keeps its parts."""
    return module._modules


def own_buffers(module: nn.Module) -> dict[str, Tensor | None]:
    """The dictionary in which it keeps its buffers."""
    return module._buffers


def own_hooks(module: nn.Module) -> tuple[dict[int, Any], ...]:
    """The dictionaries in which it keeps the hooks of its passes."""
    return (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )


def has_hooks_of_state(module: nn.Module) -> bool:
    """Whether something is called when its state is saved or loaded."""
    return any(
        (
            module._state_dict_hooks,
            module._state_dict_pre_hooks,
            module._load_state_dict_pre_hooks,
            module._load_state_dict_post_hooks,
        )
    )


def copy_hooks(module: nn.Module, to: nn.Module) -> None:
    """Give all hooks of a module to another one, too."""
    for name, value in vars(module).items():
        if "_hook" in name and isinstance(value, dict):
            vars(to)[name].update(value)
        elif name == "_is_full_backward_hook":
            setattr(to, name, value)


def is_saved(module: nn.Module, buffer: str) -> bool:
    """Whether the module's state has a buffer of it."""
    return buffer not in module._non_persistent_buffers_set


def flat_names(rnn: Any) -> list[str]:
    """The names of a recurrent layer's parameters, in the order of the list it computes with."""
    names: list[str] = rnn._flat_weights_names
    return names


def make_flat(rnn: Any) -> None:
    """Make that list of a recurrent layer's parameters."""
    rnn._init_flat_weights()


def forget_flat(rnn: Any) -> None:
    """Take the tensors out of that list."""
    rnn._flat_weights = [None] * len(rnn._flat_weights_names)
    rnn._flat_weight_refs = [None] * len(rnn._flat_weights_names)


def use_attributes(rnn: Any) -> None:
    """Let a recurrent layer's attributes be its only parameters, and the list's."""
    values = vars(rnn)
    # reset_parameters goes through the parameters, all else through the list.
    values["_parameters"] = {name: values[name] for name in rnn._flat_weights_names}
    values["_modules"] = {}
    values["_flat_weights"] = list(values["_parameters"].values())


def reset_attention(attention: Any) -> None:
    """Draw the parameters of attention, but for those of its last layer."""
    attention._reset_parameters()


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
