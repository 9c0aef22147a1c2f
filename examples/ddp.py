"""Data-parallel training, and a proof that its bound is scaled right: the exact posterior.

torchrun --standalone --nproc-per-node 2 examples/ddp.py

Each process has its own rows and its own draws of the weights; DistributedDataParallel averages
gradients. The loss of a process is the mean over its batch plus the divergence over the number of
rows of *all* processes, so the average is the loss of the batches together. The model here is
linear with known noise and uncorrelated inputs, whose posterior has a closed form; any other takes
its place.
"""

from __future__ import annotations

import argparse

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import bslfast

ROWS, NOISE = 512, 2.0


def data() -> tuple[torch.Tensor, torch.Tensor]:
    """The same rows in every process: four orthogonal columns of mean square 1."""
    generator = torch.Generator().manual_seed(0)
    columns = torch.randn(ROWS, 4, generator=generator)
    x = torch.linalg.qr(columns - columns.mean(0)).Q * ROWS**0.5
    y = x @ torch.tensor([[2.0], [-1.0], [0.5], [0.0]])
    return x, y + NOISE * torch.randn(ROWS, 1, generator=generator)


def main(epochs: int = 80, batch_size: int = 64, lr: float = 0.05) -> tuple[float, float]:
    """Return the worst errors of means and standard deviations, in exact standard deviations."""
    dist.init_process_group("gloo")  # "nccl" on GPUs
    rank, processes = dist.get_rank(), dist.get_world_size()
    x, y = data()
    torch.manual_seed(0)
    likelihood = bslfast.likelihoods.Normal(1, scale=NOISE)
    model = bslfast.bnn.BayesianMLP(4, (), 1, likelihood=likelihood)
    # The parameters become those of rank 0; after that every process draws for itself. With the
    # same seed everywhere all would draw the same weights, and the gradients would be noisier.
    parallel = DistributedDataParallel(model)
    torch.manual_seed(rank)

    dataset = TensorDataset(x, y)
    sampler: DistributedSampler[tuple[torch.Tensor, ...]] = DistributedSampler(dataset)
    loader = DataLoader(dataset, batch_size // processes, sampler=sampler)
    optimizer = torch.optim.Adam(model.parameters(), lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loader))
    for epoch in range(epochs):
        sampler.set_epoch(epoch)  # another order of the rows
        for inputs, targets in loader:
            optimizer.zero_grad()
            log_likelihood = likelihood.log_prob(parallel(inputs), targets)
            loss = bslfast.negative_elbo(
                log_likelihood, bslfast.nn.kl(model), dataset_size=len(dataset)
            )
            loss.backward()
            optimizer.step()
            schedule.step()

    weight, _ = model.layers[0].weights()
    # The posterior from the prior N(0, 1) and ROWS observations with the variance NOISE^2.
    precision = 1 + ROWS / NOISE**2
    exact, std = (x * y).sum(0) / NOISE**2 / precision, precision**-0.5
    with torch.no_grad():
        means = ((weight.loc[0] - exact).abs().max() / std).item()
        stds = ((weight.stddev()[0] - std).abs().max() / std).item()
    if rank == 0:
        print(f"{processes} processes, exact standard deviation {std:.4f}")
        print(f"errors in that unit: {means:.3f} of means, {stds:.3f} of standard deviations")
    dist.destroy_process_group()
    return means, stds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=80)
    main(parser.parse_args().epochs)
