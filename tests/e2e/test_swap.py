"""A swap to another bundle while requests keep coming."""

import itertools
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import requests

from serve.bundle.images import write_png
from serve.bundle.manifest import Bundle, Tolerance
from serve.launcher.swap import main

from .conftest import Running, running

FILE = write_png(np.full((1, 28, 28), 90, np.uint8))
VECTOR = b'{"embeddings": [[0.1, 0.2]]}'
PAUSE_S = 0.02  # of each caller between two requests: a swap needs some of the cores too
QUESTIONS = {  # endpoint → body and its type
    "embed": (FILE, "image/png"),
    "reconstruct": (FILE, "image/png"),
    "decode": (VECTOR, "application/json"),
}


@contextmanager
def under_load(service: Running) -> Iterator[Counter[tuple[str, int, str]]]:
    """Keep asking all three endpoints; counts (endpoint, status, digest) of the replies."""
    seen: Counter[tuple[str, int, str]] = Counter()
    over = threading.Event()

    def keep_asking(endpoint: str) -> None:
        body, content_type = QUESTIONS[endpoint]
        with requests.Session() as session:
            while not over.wait(PAUSE_S):
                url = f"{service.url}/predictions/{endpoint}"
                reply = session.post(url, body, headers={"Content-Type": content_type}, timeout=30)
                digest = reply.headers.get("X-Model-Digest", "")
                seen[endpoint, reply.status_code, digest] += 1

    with ThreadPoolExecutor(6) as pool:
        loads = [pool.submit(keep_asking, name) for name in itertools.chain(QUESTIONS, QUESTIONS)]
        try:
            yield seen
        finally:
            over.set()
    for load in loads:
        load.result()  # raises what the thread did


def digest_now(service: Running, endpoint: str) -> str:
    """The digest of the model that answers."""
    body, content_type = QUESTIONS[endpoint]
    url = f"{service.url}/predictions/{endpoint}"
    reply = requests.post(url, body, headers={"Content-Type": content_type}, timeout=30)
    return reply.headers["X-Model-Digest"]


def test_swap_and_rollback_lose_no_request(
    server: str,
    shipped_bundle: Bundle,
    small_bundle: Bundle,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Swap and rollback fail no request under load, and a refused bundle changes nothing."""
    damaged = tmp_path / "damaged"
    shutil.copytree(small_bundle.folder, damaged)
    (damaged / "decoder.onnx").write_bytes(b"")
    unfit = tmp_path / "unfit"  # whole, so it is copied; then its golden check fails
    shutil.copytree(small_bundle.folder, unfit)
    wrong = {precision: Tolerance(-1.0, -1.0) for precision in small_bundle.manifest.tolerances}
    manifest = replace(small_bundle.manifest, tolerances=wrong)
    (unfit / "manifest.json").write_text(manifest.as_json())
    old, new = shipped_bundle.manifest.digest, small_bundle.manifest.digest
    with running(shipped_bundle, tmp_path, server=server) as service:
        port = ("--port", str(service.port))
        models = f"http://127.0.0.1:{service.port + 3}/v2/models/embed"
        with under_load(service) as seen:
            assert main([str(damaged), *port]) == 1
            assert main([str(unfit), *port]) == 1
            assert main(["--rollback", *port]) == 1
            assert main([str(small_bundle.folder), *port]) == 0
            assert {digest_now(service, endpoint) for endpoint in QUESTIONS} == {new}
            assert requests.get(models, timeout=10).json()["digest"] == new
            assert service.readiness().ok

            assert main(["--rollback", *port]) == 0
            assert {digest_now(service, endpoint) for endpoint in QUESTIONS} == {old}

        assert {status for _, status, _ in seen} == {200}
        assert {(name, digest) for name, _, digest in seen} == set(
            itertools.product(QUESTIONS, (old, new))
        )
        said = capsys.readouterr()
        assert f"digest {new[:12]}, formerly {old[:12]}" in said.out
        assert "is wrong: golden embeddings differ" in said.err
        assert "decoder.onnx was changed or cut short" in said.err
        assert "nothing to go back to" in said.err
        assert "may be lost" not in service.log.read_text()


def test_nobody_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Where no service listens, the command prints one line."""
    assert main(["anything", "--port", "1024"]) == 1

    error = capsys.readouterr().err
    assert error == (
        "swap: no proper answer from http://127.0.0.1:1027/swap: is the service running?\n"
    )
