"""The aims of `python benchmarks/vae_peers`, and what its table says of them."""

from __future__ import annotations

from vae_peers.peers import ADAM, BOUND, LOOP, MARGINAL, STEP

#: The peers whose column has bslfast's time as a multiple of theirs.
PLAIN = "networks alone"
_NOT_SLOWER = {"torch eager": "at least 1"}
AIMS = {
    ("784-400-400-20", STEP): {PLAIN: "at most 1.05", "torch.compile": "at least 1"} | _NOT_SLOWER,
    ("784-400-20", STEP): _NOT_SLOWER,
    ("64-64-2", STEP): _NOT_SLOWER,
    ("784-400-400-20", ADAM): _NOT_SLOWER,
    ("784-400-20", ADAM): _NOT_SLOWER,
    ("64-64-2", ADAM): _NOT_SLOWER,
    ("784-400-20", LOOP): {"torch eager": "at least 1.2"},
    ("64-64-2", LOOP): {"torch eager": "at least 3"},
    ("784-400-400-20", BOUND): {PLAIN: "at most 1.06"},
    ("784-400-400-20 apart", BOUND): _NOT_SLOWER,
    ("784-400-400-20", MARGINAL): {"pythae": "at least 2"},
    ("sample + KL", STEP): {"torch eager": "at least 4"},
    ("Bernoulli", STEP): {"torch eager": "at least 4"},
}
TEXT = (
    "The networks alone are those of a plain autoencoder: the gradient of the decoder's outputs is "
    "given, and of 50 samples a row all are the same. In a training loop, times are of one step; "
    "those of peers are their steps with Adam. Apart: importance weights differ as much as at the "
    "start of training. The two parts are without networks."
)
