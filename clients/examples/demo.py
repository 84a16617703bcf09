"""The whole service in one minute: start it, send it handwriting, show its answers.

Run by ``make demo``. The handwriting is thirty of MNIST's test images, on which the model was not
trained, and a photograph of a digit on paper, which the demo makes itself.
"""

import argparse
import io
import random
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

import numpy as np
import requests
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from pinhole import Client, Reconstruction

DIGITS = Path(__file__).parent / "digits"
PHOTOGRAPHED = DIGITS / "3-00112.png"
PER_DIGIT = 3  # files of each digit
NEIGHBOURS = 10
START_S = 120
MARGIN, HEAD, GAP = 120, 36, 6  # of a sheet, in pixels
GROUND, TEXT = (250, 250, 250), (60, 60, 60)
PAPER, PEN = (240, 233, 215), (28, 42, 110)  # of the photograph


def main() -> int:
    """Run the demo; returns the exit code."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("bundle", type=Path)
    options.add_argument("--out", type=Path, required=True, help="folder for the results")
    where = options.parse_args()
    where.out.mkdir(parents=True, exist_ok=True)
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
            show(port, where.out)
        finally:
            service.terminate()
    print("stopped TorchServe")
    return 0


def free_port() -> int:
    """The first of six free ports in a row, which is what a service takes.

    The ports are tried in random order: two demos at once would find the same ones free.
    """
    for first in random.sample(range(18_080, 28_080, 10), 1_000):
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


def show(port: int, out: Path) -> None:
    """Send the digits and a photograph, print the numbers, and save the pictures."""
    photo = out / "photograph.jpg"
    photo.write_bytes(photograph(PHOTOGRAPHED))
    files = [*sorted(DIGITS.glob("*.png")), photo]
    with Client(f"http://127.0.0.1:{port}") as client:
        embeddings, answers = client.embed(files), client.reconstruct(files, seen=True)
    known = requests.get(f"http://127.0.0.1:{port + 3}/map.json", timeout=60).json()
    places, labels = np.array(known["embeddings"]), np.array(known["labels"])

    print("\nfile            embedding         mse     percentile  nearest known digits")
    for file, embedding, answer in zip(files, embeddings, answers, strict=True):
        x, y = embedding
        nearest = labels[np.hypot(*(places - embedding).T).argsort()[:NEIGHBOURS]]
        print(
            f"{file.name:14}  [{x:5.2f}, {y:5.2f}]  {answer.mse:.4f}  {answer.percentile:10.1f}  "
            + " ".join(map(str, nearest))
        )

    draw_digits(files[:-1], answers[:-1]).save(out / "digits.png")
    draw_photograph(photo, answers[-1]).save(out / "photograph.png")
    print(f"\nsent, and what two numbers remember: {out / 'digits.png'}, {out / 'photograph.png'}")


def photograph(digit: Path) -> bytes:
    """A JPEG of the digit on paper: written large and at an angle, unevenly lit, with noise."""
    drawn = Image.open(digit).resize((420, 420), Image.Resampling.BICUBIC)
    page = Image.new("L", (1000, 750))
    page.paste(drawn.filter(ImageFilter.GaussianBlur(7)).rotate(7), (480, 250))
    ink = np.clip(np.asarray(page) / 77 - 1.17, 0, 1)[..., None]  # sharpens the strokes' edges
    y, x = np.mgrid[:750, :1000, :1][:2] / 1000
    light = 1.05 - 0.4 * x * x - 0.3 * y
    noise = np.random.default_rng(0).normal(0, 5, ink.shape)
    pixels = (np.array(PAPER) * (1 - ink) + np.array(PEN) * ink) * light + noise
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=80)
    return file.getvalue()


def draw_digits(files: list[Path], answers: list[Reconstruction]) -> Image.Image:
    """A column for each digit: each file, and below it what the model remembers of it."""
    rows = []
    for nth in range(PER_DIGIT):
        sent = [file.read_bytes() for file in files[nth::PER_DIGIT]]
        remembered = [answer.png for answer in answers[nth::PER_DIGIT]]
        rows += [("sent", sent), ("remembered", remembered)]
    return draw_sheet([file.name[0] for file in files[::PER_DIGIT]], rows, 84)


def draw_photograph(photo: Path, answer: Reconstruction) -> Image.Image:
    """The photograph, what the model saw of it, and what it remembers."""
    pictures = [photo.read_bytes(), cast(bytes, answer.seen), answer.png]
    return draw_sheet(["sent", "seen", "remembered"], [("photograph", pictures)], 240)


def draw_sheet(columns: list[str], rows: list[tuple[str, list[bytes]]], side: int) -> Image.Image:
    """Image files in named columns and in named rows, which stand in pairs.

    Each file is drawn in a square of ``side`` pixels.
    """
    lefts = [MARGIN + column * (side + GAP) for column in range(len(columns))]
    tops = [HEAD + row * (side + GAP) + row // 2 * 2 * GAP for row in range(len(rows))]
    sheet = Image.new("RGB", (lefts[-1] + side + 2 * GAP, tops[-1] + side + 2 * GAP), GROUND)
    pen = ImageDraw.Draw(sheet)
    pen.font = ImageFont.load_default(18)
    for left, name in zip(lefts, columns, strict=True):
        pen.text((left + side / 2, HEAD / 2), name, TEXT, anchor="mm")
    for top, (name, files) in zip(tops, rows, strict=True):
        pen.text((MARGIN - 2 * GAP, top + side / 2), name, TEXT, anchor="rm")
        for left, file in zip(lefts, files, strict=True):
            picture = Image.open(io.BytesIO(file)).convert("RGB")
            sheet.paste(ImageOps.pad(picture, (side, side), color=GROUND), (left, top))
    return sheet


if __name__ == "__main__":
    sys.exit(main())
