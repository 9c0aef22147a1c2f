"""Every op of :mod:`bslfast.functional` in plain torch, with the same name and signature.

The oracle of the tests, the shortest documentation of what an op computes, and what runs on devices
that have no kernels. Arguments are not checked here.
"""

from bslfast.reference.normal import normal_kl, normal_rsample, normal_rsample_kl

__all__ = ["normal_kl", "normal_rsample", "normal_rsample_kl"]
