"""The compiled CPU kernels (csrc/bindings). Addresses are ints; see :mod:`bslfast._native`."""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any
from weakref import ReferenceType

from torch import Tensor

from bslfast._native._operands import Operand

#: Names, by their code in calls.
DTYPES: tuple[str, ...]
REDUCTIONS: tuple[str, ...]
PARAMETRIZATIONS: tuple[str, ...]
PRIORS: tuple[str, ...]
SCALE_FNS: tuple[str, ...]
PER: tuple[str, ...]
ROW_COEFFICIENTS: int
ACTIVATIONS: tuple[str, ...]
OPTIMIZERS: tuple[str, ...]
#: How many more slopes than bins splines have, by their tails.
EXTRA_SLOPES: dict[str | None, int]
MAX_DIMS: int
#: How many elements kernels take at a time.
BLOCK: int
#: What :func:`in_common` says; a level includes those before it.
PLAIN: int
ONE_DTYPE: int
ONE_SHAPE: int

def isa_levels() -> list[str]:
    """The instruction sets that this build and this machine have, worst first."""

def isa() -> str:
    """The one in use."""

def set_isa(name: str) -> None:
    """Use another one of :func:`isa_levels`."""

def set_tensor_types(tensor: type, parameter: type) -> bool:
    """Whether torch has the functions by which kernels read its tensors; else they cannot."""

def set_watchers(
    transforms: Callable[[], Any],
    modes: Callable[[], Any],
    tracing: Callable[[], Any],
    compiler: ModuleType,
    forward_ad: ModuleType,
) -> None: ...
def is_unwatched(in_rule: bool) -> bool:
    """Whether torch runs op by op, see :func:`bslfast.functional._op.unwatched`."""

def in_common(tensors: tuple[Tensor | None, ...]) -> int:
    """What the tensors have in common, see :mod:`bslfast.functional._op`; 0 for nothing."""

def all_within(tensor: object, low: float, high: float) -> bool:
    """Whether it is a tensor of contiguous numbers on the CPU, all of them in [low, high]."""

def set_torch_parallel_for(address: int) -> None: ...
def has_torch_threads() -> bool: ...
def math_apply(name: str, is_double: bool, x: int, y: int, n: int) -> None: ...
def philox4x32(
    c0: int, c1: int, c2: int, c3: int, key0: int, key1: int
) -> tuple[int, int, int, int]: ...
def noise_bits(out: int, n: int, seed: int, stream: int, first: int) -> None: ...
def noise_uniform(
    out: int, n: int, is_double: bool, seed: int, stream: int, first: int
) -> None: ...
def noise_normal(out: int, n: int, is_double: bool, seed: int, stream: int, first: int) -> None: ...
def draw_few_normals(out: Tensor, scale: Tensor, seed: int, stream: int) -> bool:
    """Fill ``out`` if no scale is negative. Returns whether that is so."""

# What C++ takes as a struct, a tuple of its members.
#: (dtype, parametrization, sizes, loc, raw_scale, prior_loc, prior_scale, seed, stream)
_ManyAddresses = tuple[Any, ...]
#: (parametrization, tensors, prior_loc, prior_scale, seed, stream)
_ManyTensors = tuple[Any, ...]
#: (is_double, parametrization, n_samples, loc_sizes, loc, raw_scale, lower, prior_loc,
#: prior_scale, seed, stream)
_Vector = tuple[Any, ...]
#: (op, is_double, sizes, columns, inner, x_rows, x, index, seed, stream, number, option)
_Softmax = tuple[Any, ...]

def normal_many_forward(call: _ManyAddresses, sample: Sequence[int], kl: int) -> int:
    """Which tensor has a scale that is not valid, or -1."""

def normal_many_backward(
    call: _ManyAddresses,
    grad_sample: Sequence[int],
    grad_kl: int,
    grad_loc: Sequence[int],
    grad_raw_scale: Sequence[int],
) -> None: ...
def normal_many_results(call: _ManyTensors, has_value: bool) -> tuple[Tensor, ...] | None:
    """Samples and the divergence; None if Python sees to it."""

def normal_many_kl(call: _ManyTensors, kl: Tensor) -> bool:
    """Whether the divergence has been written."""

def normal_many_gradients(
    call: _ManyTensors,
    grad_samples: Sequence[Tensor | None],
    grad_kl: Tensor | None,
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...] | None:
    """The gradients of all tensors; None as above."""

def multivariate_normal_forward(call: _Vector, samples: int, kl: int) -> bool:
    """Whether all scales are valid."""

def multivariate_normal_backward(
    call: _Vector,
    grad_samples: Sequence[int],
    grad_kl: int,
    grad_loc: Sequence[int],
    grad_raw_scale: int,
    grad_lower: int,
) -> None: ...
def softmax_ops() -> dict[str, int]:
    """Name to its place in the table."""

def softmax_forward(call: _Softmax, reduction: int, result: int) -> bool:
    """Whether all indices are columns."""

def softmax_backward(call: _Softmax, grad: Operand, grad_x: int) -> None: ...
def row_ops() -> dict[str, tuple[int, list[int], int, bool, bool, bool, int, int]]:
    """Name to what bslfast/_native/rows.py makes of it."""

def row_chunks(op: int, elements: int, width: int) -> int:
    """How many sums a call makes of gradients of a row that serves all elements."""

def row_forward(
    op: int,
    variant: int,
    is_double: bool,
    shape: Sequence[int],
    inputs: Sequence[Operand],
    widths: Sequence[int],
    numbers: Sequence[float],
    value: int,
    reduction: int,
    log: int,
) -> int:
    """A bit for each input with elements outside its domain."""

def row_backward(
    op: int,
    variant: int,
    is_double: bool,
    shape: Sequence[int],
    inputs: Sequence[Operand],
    widths: Sequence[int],
    numbers: Sequence[float],
    grad_value: Operand,
    grad_log: Operand,
    grads: Sequence[int],
    sums: Sequence[int],
    coefficients: int,
) -> None: ...
def pointwise_ops() -> dict[str, tuple[int, int, bool, bool, bool, bool, list[int]]]:
    """Name to (index, inputs, has_value, has_log, is_random, samples, passes_on by variant)."""

def pointwise_forward(
    op: int,
    variant: int,
    dtype: int,
    shape: Sequence[int],
    inputs: Sequence[Operand | Tensor],
    numbers: Sequence[float],
    seed: int,
    stream: int,
    value: int,
    reduction: int,
    log: int,
    n_samples: int,
) -> int:
    """A bit for each input with elements outside its domain."""

def pointwise_backward(
    op: int,
    variant: int,
    dtype: int,
    shape: Sequence[int],
    inputs: Sequence[Operand | Tensor],
    numbers: Sequence[float],
    seed: int,
    stream: int,
    grad_value: Operand | Tensor,
    grad_log: Operand | Tensor,
    grads: Sequence[tuple[int, int]],
    n_samples: int,
) -> None: ...
def pointwise_results(
    op: int,
    variant: int,
    numbers: Sequence[float],
    stream: int,
    reduction: int,
    samples: Sequence[int],
    apart: bool,
    halved: bool,
    tensors: tuple[Tensor, ...],
) -> Tensor | tuple[Tensor, Tensor] | None:
    """The results of an op of plain tensors and perhaps a seed.

    ``samples`` are dimensions in front, ``apart`` says whether an element has so many samples,
    ``halved`` whether the first tensor is two side by side. None if the call is an unusual one or
    has inputs outside their domain.
    """

def pointwise_gradients(
    op: int,
    variant: int,
    numbers: Sequence[float],
    stream: int,
    reduction: int,
    samples: Sequence[int],
    apart: bool,
    halved: bool,
    tensors: tuple[Tensor, ...],
    grads: tuple[Tensor | None, ...],
    needs: tuple[bool, ...],
    unbroadcast: Callable[[Tensor, Tensor], Tensor | None],
) -> tuple[Tensor | None, ...] | None:
    """The gradients of the tensors of such a call, and a None behind; None alone likewise."""

def have_entries(dicts: list[dict[str, Any]], names: list[str], values: list[Any]) -> bool:
    """Whether each dictionary has this very value by this name; None: or nothing."""

def have_sizes(dicts: list[dict[str, Any]], sizes: list[int]) -> bool:
    """Whether each dictionary has so many entries."""

def are_of_types(references: list[ReferenceType[Any]], types: list[type]) -> bool:
    """Whether each weak reference is to an object of this very type."""

MOST_SAMPLES: int

def bounds(
    is_double: bool,
    samples: int,
    examples: int,
    log: int,
    added: int,
    bound: int,
    weights: int,
) -> None: ...

class Program:
    lanes: int
    n_parameters: int
    n_gradients: int

    def __init__(
        self,
        features: int,
        context: int,
        steps: Sequence[
            tuple[
                str,
                Sequence[int],
                Sequence[int],
                Sequence[int],
                Sequence[int],
                Sequence[float],
            ]
        ],
        results: Sequence[int],
        sizes: Sequence[int],
        draws: Sequence[tuple[int, int, int, float, float]] = ...,
        noises: int = ...,
        least_in_groups: int = ...,
        sign: float = ...,
        far: float = ...,
    ) -> None: ...
    def forward(
        self,
        is_double: bool,
        rows: int,
        samples: int,
        n_draws: int,
        parameters: Sequence[int],
        seeds: tuple[Sequence[int], Sequence[int]],
        x: int,
        context: int,
        value: int,
        log: int,
    ) -> None: ...
    def backward(
        self,
        is_double: bool,
        rows: int,
        parameters: Sequence[int],
        seeds: tuple[Sequence[int], Sequence[int]],
        x: int,
        context: int,
        log: int,
        grad_value: int,
        grad_log: int,
        grad_each: float,
        grad_kl: float,
        grad_x: int,
        grad_context: int,
        grad_parameters: int,
        wanted: Sequence[bool],
    ) -> None: ...
    def bound(
        self,
        is_double: bool,
        rows: int,
        samples: int,
        parameters: Sequence[int],
        x: int,
        context: int,
        added: int,
        bound: int,
        weights: int,
        grad_bound: int,
        grad_each: float,
        grad_x: int,
        grad_parameters: int,
        wanted: Sequence[bool],
    ) -> None: ...
    def loss(
        self,
        is_double: bool,
        rows: int,
        parameters: Sequence[int],
        seeds: tuple[Sequence[int], Sequence[int]],
        x: int,
        context: int,
        kl_weight: float,
        grad_x: int,
        grad_context: int,
        grad_parameters: int,
        wanted: Sequence[bool],
    ) -> float:
        """The loss, whose gradients are written."""

    def train(
        self,
        is_double: bool,
        rows: int,
        batch_rows: int,
        order: int,
        x: int,
        context: int,
        parameters: Sequence[int],
        wanted: Sequence[bool],
        means: Sequence[int],
        mean_squares: Sequence[int],
        optimizer: str,
        decay: float,
        decay_square: float,
        epsilon: float,
        weight_decays: Sequence[float],
        clip: float,
        rates: Sequence[float],
        steps_before: int,
        seeds: tuple[Sequence[int], Sequence[int]],
        kl_weights: Sequence[float],
    ) -> tuple[list[float], list[float]]:
        """For each step, the sum of its rows' negative logarithms, and the divergence."""
