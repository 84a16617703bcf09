"""Training speed of this project, of a plain PyTorch loop and of Lightning, in one run.

    python -m bench.train --data-dir data          # or: make bench-train

The plain loop follows the published recipe: float32, contiguous tensors, a DataLoader of PIL images
through ToTensor, batch 64, Adam. Lightning trains the same (bench/peers/lightning_loop.py). This
project's loop is ``train.loop.Trainer`` with the same model and batch size. Each loop runs in a
process of its own, because ``keep_freed_memory`` changes the whole process. The loops take turns
for some rounds, and the medians are reported.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional

from bench.environments import python_of
from bench.tables import machine, print_table
from train.config import TrainConfig
from train.data import add_data_dir, load_dataset
from train.device import choose_device, choose_precision, keep_freed_memory
from train.loop import Trainer
from train.mnist import import_torchvision_datasets
from train.model import Autoencoder

WARM_UP_S = 4.0
MEASURED_S = 12.0
EPOCHS, EPOCH = 200, 48_000  # the published recipe's run: epochs, and images in each, 80 % of MNIST


class TimeIsUp(Exception):
    """Ends the measured loop, which would train without end."""


class Meter:
    """Counts images after the warm-up, and ends the loop after MEASURED_S."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._measured_from: float | None = None
        self._images = 0
        self.rate = 0.0  # images/s

    def count(self, images: int) -> None:
        """Count the images of a finished step.

        Raises:
            TimeIsUp: the measurement is over; ``rate`` holds the result.
        """
        now = time.perf_counter()
        if self._measured_from is None:
            if now - self._started > WARM_UP_S:
                self._measured_from = self._now_synchronised()
            return
        self._images += images
        if now - self._measured_from > MEASURED_S:
            self.rate = self._images / (self._now_synchronised() - self._measured_from)
            raise TimeIsUp

    @staticmethod
    def _now_synchronised() -> float:
        """The time, after every CUDA kernel that was launched has ended."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()


def plain_loop(data_dir: Path, count: Callable[[int], None]) -> None:
    """Train as the published recipe does, without end."""
    datasets = import_torchvision_datasets()
    from torchvision.transforms import ToTensor

    device = choose_device("auto")
    mnist = datasets.MNIST(str(data_dir), transform=ToTensor(), download=True)
    loader = torch.utils.data.DataLoader(mnist, batch_size=64, shuffle=True)
    model = Autoencoder(TrainConfig()).to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-4)
    while True:
        for images, _ in loader:
            images = images.to(device)
            loss = functional.mse_loss(model(images * 255), images)  # the model divides by 255
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            count(len(images))


def our_loop(data_dir: Path, count: Callable[[int], None]) -> None:
    """Train with this project's Trainer, without end."""
    keep_freed_memory()
    trainer = Trainer(TrainConfig(), load_dataset("mnist", data_dir))
    while True:
        trainer.run_epoch(count)


def lightning_loop(data_dir: Path, count: Callable[[int], None]) -> None:
    """Train with Lightning, in its own environment, without end."""
    import_torchvision_datasets()  # Lightning imports torchvision too, which needs this help
    from bench.peers.lightning_loop import lightning_loop as loop

    loop(data_dir, count)


LOOPS = {"plain": plain_loop, "lightning": lightning_loop, "ours": our_loop}


def main() -> int:
    """Compare the loops; with --only, which child processes get, measure a single loop."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_data_dir(parser, "folder that MNIST is read from or downloaded to")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--only", choices=LOOPS, help="measure only this loop")
    options = parser.parse_args()
    if options.only:
        meter = Meter()
        try:
            LOOPS[options.only](options.data_dir, meter.count)
        except TimeIsUp:
            print(meter.rate)
        return 0
    compare(options.data_dir.resolve(), options.rounds)
    return 0


def measure_in_child(name: str, data_dir: Path) -> float:
    """Images/s of a loop in a process of its own.

    Raises:
        RuntimeError: its environment can't be installed.
    """
    python = python_of("lightning") if name == "lightning" else sys.executable
    command = [python, "-m", "bench.train", "--only", name, "--data-dir", str(data_dir)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def compare(data_dir: Path, rounds: int) -> None:
    """Run the loops in turn; print the medians, and the medians of the ratios in each round."""
    rates: dict[str, list[float]] = {name: [] for name in LOOPS}
    for number in range(1, rounds + 1):
        for name in list(rates):
            try:
                rates[name].append(measure_in_child(name, data_dir))
            except (RuntimeError, subprocess.CalledProcessError) as error:
                del rates[name]
                print(f"Left out: {name}: {error}")
                continue
            print(f"round {number} of {rounds}: {name} {rates[name][-1]:,.0f} images/s", flush=True)
    device, precision = choose_device("auto"), choose_precision(TrainConfig())
    print(f"\n{machine('torch')}; {device}, ours in {precision}\n")
    print_table(
        ["", "images/s", "an epoch, s", f"{EPOCHS} epochs, min", "× plain", "in the rounds"],
        (row(name, found, rates["plain"]) for name, found in rates.items()),
    )


def row(name: str, found: list[float], plain: list[float]) -> list[str]:
    """A loop's line of the table."""
    rate = statistics.median(found)
    ratios = [own / other for own, other in zip(found, plain, strict=True)]
    return [
        name,
        f"{rate:,.0f}",
        f"{EPOCH / rate:,.1f}",
        f"{EPOCHS * EPOCH / rate / 60:,.0f}",
        f"{statistics.median(ratios):.2f}",
        f"{min(ratios):.2f} to {max(ratios):.2f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
