"""Embedding with TorchServe and a handler of one's own: POST an image file to /predictions/embed.

    BUNDLE=build/mnist python -m bench.peers.torchserve_service --port 9080

As TorchServe comes, with a worker for each core. Dynamic batches are as its page on batches has
them, with a wait of a millisecond; the queue is longer than usual, to take 256 connections.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from serve.torchserve.java import find_java

HANDLER = Path(__file__).with_name("torchserve_handler.py")
WORKERS = len(os.sched_getaffinity(0))
MODEL = {
    "marName": "embed.mar",
    "minWorkers": WORKERS,
    "maxWorkers": WORKERS,
    "batchSize": 64,
    "maxBatchDelay": 1,
}


def run(port: int, home: Path) -> int:
    """Archive the handler, and run TorchServe until it ends."""
    programs, store, config = Path(sys.executable).parent, home / "store", home / "config"
    store.mkdir()
    archive = ["--model-name", "embed", "--version", "1.0", "--handler", HANDLER]
    archiver = [programs / "torch-model-archiver", *archive, "--export-path", store]
    subprocess.run(archiver, check=True)
    config.write_text("\n".join(f"{name}={value}" for name, value in settings(port).items()))
    start = ["--start", "--foreground", "--disable-token-auth", "--model-store", store]
    return subprocess.call(
        [programs / "torchserve", *start, "--ts-config", config],
        env=os.environ
        | {"JAVA_HOME": str(find_java().parent.parent)}
        | dict.fromkeys(("LOG_LOCATION", "METRICS_LOCATION", "TEMP"), str(home)),
    )


def settings(port: int) -> dict[str, object]:
    """What config.properties says."""
    names = ("inference_address", "management_address", "metrics_address")
    return {
        **{name: f"http://127.0.0.1:{port + offset}" for offset, name in enumerate(names)},
        "grpc_inference_port": port + 3,
        "grpc_management_port": port + 4,
        "initial_worker_port": port + 1_000,
        "job_queue_size": 1_000,
        "load_models": "embed.mar",
        "models": json.dumps({"embed": {"1.0": MODEL}}),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8080)
    with tempfile.TemporaryDirectory() as name:
        sys.exit(run(parser.parse_args().port, Path(name)))
