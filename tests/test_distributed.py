"""Data-parallel training and sharded weights in two processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

# The likelihood's scale is used by the loss alone, not by the model's outputs.
SCRIPT = """
import sys, warnings
import torch, torch.distributed as dist
import bslfast
from bslfast.vae import VAE, SemiSupervisedVAE, mlp_decoder, mlp_encoder

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
x = torch.randn(8, 3, generator=torch.Generator().manual_seed(rank))
y = x[:, :1]


def gradients(model, own):
    torch.manual_seed(rank)  # of the draw of the weights
    model.zero_grad()
    log_likelihood = own.likelihood.log_prob(model(x), y)
    bayesian = any(isinstance(m, bslfast.nn.BayesianModule) for m in model.modules())
    kl = bslfast.nn.kl(model) if bayesian else 0.0
    bslfast.negative_elbo(log_likelihood, kl, dataset_size=16).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


for options in ({}, {"find_unused_parameters": True}, {"static_graph": True}):
    for twin in (False, True):
        torch.manual_seed(0)
        model = bslfast.bnn.BayesianMLP(3, (5,), 1)
        model = model.deterministic_twin() if twin else model
        expected = gradients(model, model)
        dist.all_reduce(expected)
        parallel = torch.nn.parallel.DistributedDataParallel(model, **options)
        for _ in range(3):  # torch finds out in the step after that one was not complete
            found = gradients(parallel, parallel.module)
            torch.testing.assert_close(found, expected / 2)
        assert bslfast.predict(parallel, x, 5).mean.shape == (8, 1)

# One process has labels, the other none.
torch.manual_seed(0)
encoder, decoder = mlp_encoder((3,), 2, context=2), mlp_decoder(2, (3,), context=2)
vae = VAE(encoder, decoder, likelihood="normal")
model = SemiSupervisedVAE(vae, torch.nn.Linear(3, 2), classes=2, labelled=0.5)


def bound_gradients(model, own):
    torch.manual_seed(rank)
    model.zero_grad()
    (-model(x, torch.full((8,), rank - 1)).mean()).backward()
    return torch.cat([p.grad.flatten() for p in own.parameters()])


expected = bound_gradients(model, model)
dist.all_reduce(expected)
parallel = torch.nn.parallel.DistributedDataParallel(model)
for _ in range(3):
    torch.testing.assert_close(bound_gradients(parallel, model), expected / 2)

# A loss without the likelihood: its parameter is unused, as torch has to find out.
parallel = torch.nn.parallel.DistributedDataParallel(
    bslfast.bnn.BayesianMLP(3, (5,), 1), find_unused_parameters=True
)
for _ in range(2):
    (parallel(x) - y).square().mean().backward()
assert parallel.module.likelihood.raw_scale.grad is None
dist.destroy_process_group()
"""


# As docs/torch_world.md says: whole models, and layers one by one whose weights stay for kl.
SHARDED = """
import copy, sys, warnings
import torch, torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
import bslfast

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))
x = torch.randn(8, 3, generator=torch.Generator().manual_seed(rank))
y = x[:, :1]
likelihood = bslfast.likelihoods.Normal(1, scale=1.0)
layers = nn.Sequential(bslfast.nn.BayesLinear(3, 5), nn.ReLU(), bslfast.nn.BayesLinear(5, 1))


def loss(model):
    torch.manual_seed(rank)  # of the draw of the weights
    if isinstance(model, bslfast.flows.Flow):
        return -model(x).mean()
    log_likelihood = likelihood.log_prob(model(x), y)
    return bslfast.negative_elbo(log_likelihood, bslfast.nn.kl(model), dataset_size=16)


for kind, model in (
    ("whole", bslfast.bnn.BayesianMLP(3, (5,), 1, likelihood=likelihood)),
    ("whole", copy.deepcopy(layers)),
    ("layers", layers),
    ("whole", bslfast.nn.Sequential(*copy.deepcopy(layers))),
    ("whole", bslfast.flows.RealNVP(3, transforms=2, hidden=(5,))),
):
    for parameter in model.parameters():
        dist.broadcast(parameter.data, 0)
    plain = copy.deepcopy(model)
    loss(plain).backward()
    expected = {}
    for name, parameter in plain.named_parameters():
        dist.all_reduce(parameter.grad)
        expected[name] = parameter.grad / 2
    if kind == "layers":
        for layer in (model[0], model[2]):
            fully_shard(layer, mesh=mesh, reshard_after_forward=False)
    fully_shard(model, mesh=mesh)
    for _ in range(2):
        model.zero_grad()
        loss(model).backward()
        for name, parameter in model.named_parameters():
            assert parameter.device_mesh == mesh
            torch.testing.assert_close(parameter.grad.full_tensor(), expected[name])
    for module in model.modules():
        if hasattr(module, "unshard"):
            module.unshard()
    if isinstance(model, bslfast.flows.Flow):
        torch.testing.assert_close(model.log_prob(x), plain.log_prob(x))
    else:
        found, wanted = (
            bslfast.predict(m, x, 5, seed=1, likelihood=likelihood).mean for m in (model, plain)
        )
        torch.testing.assert_close(found, wanted)
dist.destroy_process_group()
"""
ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="torch without gloo",
)


@pytest.mark.parametrize("script", [SCRIPT, SHARDED], ids=["parallel", "sharded"])
def test_two_processes_have_the_mean_of_their_gradients(script: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", script]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store")],
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,  # not the clone's root, whose sources would hide the installed package
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, error in zip(processes, errors, strict=True):
        assert process.returncode == 0, error


def by_torchrun(script: Path, folder: Path) -> str:
    """What a script prints, run by torchrun in two processes."""
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *command, str(script)],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_ends_at_the_exact_posterior(tmp_path: Path) -> None:
    """With a divergence of half or twice the weight, standard deviations are off by 0.3 or more."""
    printed = by_torchrun(ROOT / "examples" / "ddp.py", tmp_path)
    found = re.search(r"2 processes.*\n.*: (.*) of means, (.*) of standard", printed)
    assert found, printed
    assert float(found[1]) < 0.25
    assert float(found[2]) < 0.2


def test_the_script_of_sharded_weights(tmp_path: Path) -> None:
    """That of docs/torch_world.md, as torchrun runs it."""
    page = (ROOT / "docs" / "torch_world.md").read_text()
    found = re.search(r"(?ms)^```py\n(# sharded\.py: .*?)^```$", page)
    assert found
    (tmp_path / "sharded.py").write_text(found[1])
    printed = by_torchrun(tmp_path / "sharded.py", tmp_path)
    error = re.fullmatch(r"2 processes, error (\S+)\n", printed)
    assert error, printed
    assert float(error[1]) < 0.5
