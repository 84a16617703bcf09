"""Training speed beside the loop most people would write, in one run: images/s and their ratio.

    python -m bench.train --data-dir data

The peer is in the published recipe's own style: float32, contiguous, a DataLoader of PIL images
through ToTensor, batch 64, one Adam step after another. Ours is ``train.loop.Trainer`` with the
same model and batch. Each runs in a process of its own (one of our habits concerns the whole
process), in turn, ROUNDS times; medians count.
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
from train.data import import_torchvision_datasets, load_dataset
from train.device import choose_device, choose_precision, keep_freed_memory
from train.loop import Trainer
from train.model import Autoencoder

ROUNDS = 3
WARM_UP_S = 4.0
MEASURED_S = 12.0
SEED_IMAGES = 200 * 48_000  # what the published recipe learns: 200 epochs of the 80 % split


class TimeIsUp(Exception):
    """Ends a loop that would go on."""


class Meter:
    """Counts images once the warm-up is over, and ends the loop when enough were counted."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._measured_from: float | None = None
        self._images = 0
        self.rate = 0.0  # images/s

    def count(self, images: int) -> None:
        """Note a finished step.

        Raises:
            TimeIsUp: the rate is known.
        """
        now = time.perf_counter()
        if self._measured_from is None:
            if now - self._started > WARM_UP_S:
                self._measured_from = self._now_for_sure()
            return
        self._images += images
        if now - self._measured_from > MEASURED_S:
            self.rate = self._images / (self._now_for_sure() - self._measured_from)
            raise TimeIsUp

    @staticmethod
    def _now_for_sure() -> float:
        """The time once every kernel that was started has ended."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()


def plain_loop(data_dir: Path, count: Callable[[int], None]) -> None:
    """The peer."""
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
    """Ours."""
    keep_freed_memory()
    trainer = Trainer(TrainConfig(), load_dataset("mnist", data_dir))
    while True:
        trainer.run_epoch(count)


LOOPS = {"plain": plain_loop, "ours": our_loop}


def main() -> int:
    """Compare both loops, or (in a child process) measure one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path(os.environ.get("PINHOLE_DATA", "data")),
        help="where MNIST lies (default: $PINHOLE_DATA or data)",
    )
    parser.add_argument("--only", choices=LOOPS, help="measure one loop and print its images/s")
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


def compare(data_dir: Path) -> None:
    """Run the loops in turn and print medians and the ratio."""
    rates: dict[str, list[float]] = {name: [] for name in LOOPS}
    for number in range(1, ROUNDS + 1):
        for name in LOOPS:
            command = [
                sys.executable,
                "-m",
                "bench.train",
                "--only",
                name,
                "--data-dir",
                str(data_dir),
            ]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rates[name].append(float(done.stdout))
            print(f"round {number} of {ROUNDS}: {name} {rates[name][-1]:,.0f} images/s", flush=True)
    device, precision = choose_device("auto"), choose_precision(TrainConfig())
    ratios = [ours / plain for ours, plain in zip(rates["ours"], rates["plain"], strict=True)]
    print(f"\n{'':<24} {'images/s':>10} {'200 epochs':>12}")
    for name in LOOPS:
        rate = statistics.median(rates[name])
        what = f"plain ({device}, fp32)" if name == "plain" else f"ours ({device}, {precision})"
        print(f"{what:<24} {rate:>10,.0f} {SEED_IMAGES / rate / 60:>8.1f} min")
    middle, least, most = statistics.median(ratios), min(ratios), max(ratios)
    print(f"ours is {middle:.1f} times as fast ({least:.1f} to {most:.1f})")


if __name__ == "__main__":
    sys.exit(main())
