"""The whole service in one minute: start it, send it real handwriting, print its answers.

Run by ``make demo``. The handwriting is scikit-learn's digits: pen strokes of 43 people, 8×8
pixels each, which the model (trained on MNIST) has never seen.
"""

import argparse
import io
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import requests
from PIL import Image
from sklearn.datasets import load_digits

from pinhole import Client, Reconstruction
from pinhole.cli import main as pinhole

PER_DIGIT = 3  # Samples of each digit in the picture.
START_S = 120


def main() -> int:
    """Run the demo; returns the exit code."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("bundle", type=Path)
    options.add_argument("--out", type=Path, required=True, help="folder for the results")
    where = options.parse_args()
    digits = where.out / "digits"
    write_digits(digits)
    port = free_port()
    log = where.out / "serve.log"
    print(f"starting TorchServe on http://127.0.0.1:{port}, its log in {log} ...")
    command = [sys.executable, "-m", "serve", where.bundle, "--port", str(port)]
    with (
        log.open("w") as messages,
        subprocess.Popen(command, stdout=messages, stderr=messages) as service,
    ):
        try:
            wait_until_ready(service, port)
            url = f"http://127.0.0.1:{port}"
            print()
            pinhole(
                ["embed", str(digits), "--out", str(where.out / "embeddings.parquet"), "--url", url]
            )
            with Client(url) as client:
                show(client, digits, where.out)
        finally:
            service.terminate()
    print("stopped TorchServe")
    return 0


def write_digits(folder: Path) -> None:
    """Write scikit-learn's digits as PNG files, placed as MNIST places its own: 20×20 in 28×28."""
    folder.mkdir(parents=True, exist_ok=True)
    small = load_digits()
    for index, (pixels, label) in enumerate(zip(small.images, small.target, strict=True)):
        ink = Image.fromarray((pixels / 16 * 255).astype(np.uint8))
        page = Image.new("L", (28, 28))
        page.paste(ink.resize((20, 20), Image.Resampling.BICUBIC), (4, 4))
        page.save(folder / f"{label}-{index:04}.png")


def free_port() -> int:
    """The first of six free ports in a row, which is what a service takes."""
    for first in range(18_080, 28_080, 10):
        try:
            for port in range(first, first + 6):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise SystemExit("demo: no six free ports in a row")


def wait_until_ready(service: subprocess.Popen[bytes], port: int) -> None:
    """Wait for the launcher to say that every worker has passed the golden check."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and service.poll() is None:
        try:
            if requests.get(f"http://127.0.0.1:{port + 3}/ready", timeout=5).ok:
                return
        except requests.ConnectionError:
            pass  # The launcher doesn't listen yet.
        time.sleep(0.5)
    raise SystemExit("demo: the service did not become ready; its log says why")


def show(client: Client, digits: Path, out: Path) -> None:
    """Reconstruct some digits, print the numbers, and save the pictures."""
    print("\n      embedding        mse    percentile")
    samples = [sorted(digits.glob(f"{label}-*.png"))[:PER_DIGIT] for label in range(10)]
    pairs = [(path, client.reconstruct(path)) for column in samples for path in column]
    for path, answer in pairs[::PER_DIGIT]:
        x, y = client.embed(path)
        print(
            f"  {path.name[0]}  [{x:6.2f}, {y:6.2f}]   {answer.mse:.4f}   {answer.percentile:5.1f}"
        )

    picture = out / "reconstructions.png"
    draw_pairs(pairs).save(picture)
    print(f"\noriginals above what two numbers remember of them: {picture}")


def draw_pairs(pairs: list[tuple[Path, Reconstruction]]) -> Image.Image:
    """A column for each digit; originals above their reconstructions, enlarged fourfold."""
    side, gap = 112, 8
    columns = len(pairs) // PER_DIGIT
    sheet = Image.new("L", (columns * side, PER_DIGIT * (2 * side + gap) - gap), 96)
    for index, (path, answer) in enumerate(pairs):
        column, row = divmod(index, PER_DIGIT)
        top = row * (2 * side + gap)
        for offset, source in ((0, path), (side, answer.png)):
            with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as picture:
                sheet.paste(picture.resize((side, side)), (column * side, top + offset))
    return sheet


if __name__ == "__main__":
    sys.exit(main())
