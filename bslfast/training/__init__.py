"""Training by mini-batches, with early stopping, checkpoints and bit-identical resume."""

from bslfast.training import schedules
from bslfast.training.loop import History, fit

__all__ = ["History", "fit", "schedules"]
