"""Training speed of this project and of a plain PyTorch loop, in the same run: images/s and ratio.

    python -m bench.train --data-dir data

The plain loop follows the published recipe: float32, contiguous tensors, a DataLoader of PIL images
through ToTensor, batch 64, Adam. This project's loop is ``train.loop.Trainer`` with the same model
and batch size. Each loop runs in a process of its own, because ``keep_freed_memory`` changes the
whole process. The loops take turns for ROUNDS rounds, and the medians are reported.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional

from train.config import TrainConfig
from train.data import load_dataset
from train.device import choose_device, choose_precision, keep_freed_memory
from train.loop import Trainer
from train.mnist import import_torchvision_datasets
from train.model import Autoencoder

ROUNDS = 3
WARM_UP_S = 4.0
MEASURED_S = 12.0
RECIPE_IMAGES = 200 * 48_000  # the published recipe's run: 200 epochs of 80 % of MNIST


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


LOOPS = {"plain": plain_loop, "ours": our_loop}


def main() -> int:
    """Compare both loops; with --only, which child processes get, measure a single loop."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path(os.environ.get("PINHOLE_DATA", "data")),
        help="folder that MNIST is read from or downloaded to (default: $PINHOLE_DATA or data)",
    )
    parser.add_argument("--only", choices=LOOPS, help="measure only this loop")
    options = parser.parse_args()
    if options.only:
        meter = Meter()
        try:
            LOOPS[options.only](options.data_dir, meter.count)
        except TimeIsUp:
            print(meter.rate)
        return 0
    compare(options.data_dir)
    return 0


def measure_in_child(name: str, data_dir: Path) -> float:
    """Images/s of a loop in a process of its own."""
    command = [sys.executable, "-m", "bench.train", "--only", name, "--data-dir", str(data_dir)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def compare(data_dir: Path) -> None:
    """Run the loops in turn; print the medians and the ratio."""
    rates: dict[str, list[float]] = {name: [] for name in LOOPS}
    for number in range(1, ROUNDS + 1):
        for name in LOOPS:
            rates[name].append(measure_in_child(name, data_dir))
            print(f"round {number} of {ROUNDS}: {name} {rates[name][-1]:,.0f} images/s", flush=True)
    device, precision = choose_device("auto"), choose_precision(TrainConfig())
    ratios = [ours / plain for ours, plain in zip(rates["ours"], rates["plain"], strict=True)]
    print(f"\n{'':<24} {'images/s':>10} {'200 epochs':>12}")
    for name in LOOPS:
        rate = statistics.median(rates[name])
        label = f"plain ({device}, fp32)" if name == "plain" else f"ours ({device}, {precision})"
        print(f"{label:<24} {rate:>10,.0f} {RECIPE_IMAGES / rate / 60:>8.1f} min")
    median, least, most = statistics.median(ratios), min(ratios), max(ratios)
    print(f"ours is {median:.1f} times as fast ({least:.1f} to {most:.1f})")


if __name__ == "__main__":
    sys.exit(main())
