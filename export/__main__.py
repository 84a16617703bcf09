"""``python -m export``: turn a checkpoint into the bundle that serving runs from."""

import argparse
import hashlib
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export.errors import ExportError
from export.graphs import write_onnx, write_torchscript
from export.parity import EagerEngine, answer_eagerly, check_engines, judge_precisions, table
from serve.bundle.errors import ServeError
from serve.bundle.manifest import (
    FILES,
    VERSION,
    VERSION_FORM,
    Bundle,
    Calibration,
    Golden,
    ImageSpec,
    Manifest,
    Tolerance,
    load_bundle,
    sha256_of,
)
from train.augment import augment
from train.checkpoint import Checkpoint, draft_of, load_checkpoint
from train.errors import INTERRUPTED, TrainError
from train.model import Autoencoder, to_pixels

# Most probes: the images on which every exported form of the model is compared with eager PyTorch.
MOST_PROBES = 256
# How strongly the probes are warped. At this strength the model reconstructs the probes about as
# badly as images it never saw.
PROBE_WARP = 3.0
# Every 16th probe goes into the bundle, with its answers: workers check themselves on these.
GOLDEN_EVERY = 16

EXAMPLES = """
examples:
  python -m export weights/mnist --out build/mnist                the weights in this repository
  python -m export runs/mnist/checkpoint --out build/mnist        the result of python -m train
  python -m export weights/mnist --out build/mnist --mar build/archives
                                                                  for a stock TorchServe too
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parse(arguments)
    try:
        bundle = export(options.checkpoint, options.out, options.model_version)
        if options.mar:
            from export.archive import SERVER_SETTINGS, write_archives

            for archive in write_archives(bundle, options.mar):
                print(f"archive {archive}")
            print("TorchServe's config.properties has to say, or a large reply kills a worker:")
            print(SERVER_SETTINGS, end="")
    except (ExportError, ServeError, TrainError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        places = " and ".join(str(each) for each in (options.out, options.mar) if each)
        print(f"export: {error}, at work in {places}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("export: stopped", file=sys.stderr)
        return INTERRUPTED
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="Export a checkpoint as a bundle, checked against eager PyTorch.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, help="folder that python -m train wrote")
    parser.add_argument("--out", type=Path, required=True, help="bundle folder to write")
    parser.add_argument(
        "--model-version",
        type=version,
        default="1.0",
        help="version of the model that the manifest names (default: %(default)s)",
    )
    parser.add_argument(
        "--mar", type=Path, metavar="DIR", help="folder to also write TorchServe archives (.mar) to"
    )
    return parser.parse_args(arguments)


def version(text: str) -> str:
    """A model's version, for argparse."""
    if not VERSION.fullmatch(text):
        raise argparse.ArgumentTypeError(f"must be {VERSION_FORM}; got {text!r}")
    return text


def export(source: Path, out: Path, version: str) -> Bundle:
    """Write the bundle ``out`` from the checkpoint ``source``, or nothing at all.

    Raises:
        TrainError: the checkpoint can't be read, or ``out`` holds something that is no bundle.
        ExportError: the decoder has a layer that export can't rewrite.
        ParityError: an exported form disagrees with eager PyTorch.
        EngineError: an engine can't run the bundle on this host's CPU.
    """
    checkpoint = load_checkpoint(source)
    model = checkpoint.model
    expected = answer_eagerly(model, make_probes(checkpoint))
    golden = Golden(*(part[::GOLDEN_EVERY] for part in asdict(expected).values()))
    spread = float(np.sqrt(checkpoint.embeddings.var(0).mean()))
    # The variance of equal numbers isn't always 0, and that of very close ones may be.
    if spread == 0 or not np.ptp(checkpoint.embeddings, 0).any():
        raise ExportError("all test images have the same embedding: the model tells nothing apart")
    tolerances, report = judge_precisions(model, expected, spread)
    with draft_of(out, {"manifest.json", *FILES}) as draft:
        write_onnx(model, draft)
        write_torchscript(model, draft / "autoencoder.ts")
        np.savez_compressed(draft / "golden.npz", **asdict(golden))
        np.savez_compressed(
            draft / "map.npz", embeddings=checkpoint.embeddings, labels=checkpoint.labels
        )
        manifest = describe(checkpoint, version, tolerances, draft)
        report |= check_engines(Bundle(draft, manifest), expected, spread)
        manifest = replace(manifest, parity={name: asdict(p) for name, p in report.items()})
        (draft / "manifest.json").write_text(manifest.as_json())
    print(table(report))
    print(f"offered in {', '.join(tolerances)}")
    print(f"bundle  {out}, model digest {manifest.digest[:12]}")
    return load_bundle(out)


def make_probes(checkpoint: Checkpoint) -> NDArray[np.uint8]:
    """Images made without the dataset: warped reconstructions from all over the map.

    Returns:
        uint8[N, C, H, W], N at most MOST_PROBES.
    """
    step = max(1, len(checkpoint.embeddings) // MOST_PROBES)
    points = checkpoint.embeddings[::step][:MOST_PROBES]
    drawn = torch.from_numpy(EagerEngine(checkpoint.model).decode(points))
    return augment(to_pixels(drawn), PROBE_WARP, 1.0, torch.Generator().manual_seed(0)).numpy()


def describe(
    checkpoint: Checkpoint, version: str, tolerances: dict[str, Tolerance], folder: Path
) -> Manifest:
    """The manifest of the files in ``folder``, without the parity report."""
    config = checkpoint.model.config
    side, card = config.image_size, checkpoint.card
    image = ImageSpec(config.input_dim, side, side, card["polarity"], card["framing"])
    calibration = Calibration(**checkpoint.card["calibration"])
    return Manifest(
        name=config.dataset,
        version=version,
        digest=model_digest(checkpoint.model, image, calibration),
        image=image,
        embedding_width=config.output_dim,
        classes=card["dataset"]["classes"],
        calibration=calibration,
        tolerances=tolerances,
        parity={},
        files={name: sha256_of(folder / name) for name in FILES},
    )


def model_digest(model: Autoencoder, image: ImageSpec, calibration: Calibration) -> str:
    """sha256 over what decides the model's answers, and nothing that varies from host to host.

    The names and shapes of the weights stand for the network's layers. The slopes of LeakyReLU are
    no weights, so the digest covers the slopes too: a single slope if all layers have the same.
    """
    slopes = [part.negative_slope for part in model.modules() if isinstance(part, nn.LeakyReLU)]
    if len(set(slopes)) == 1:
        del slopes[1:]
    digest = hashlib.sha256(f"leaky_relu {' '.join(map(str, slopes))} ".encode())
    for name, weights in sorted(model.state_dict().items()):
        digest.update(f"{name} {list(weights.shape)} ".encode())
        digest.update(weights.numpy().astype("<f4").tobytes())
    digest.update(json.dumps([asdict(image), asdict(calibration)], sort_keys=True).encode())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
