"""Jobs on a real Ray cluster, of up to three nodes at a time, on this host."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from serve.bundle.engine.opening import open_engine
from serve.bundle.manifest import Bundle

utils = pytest.importorskip("ray.cluster_utils", reason="the extra ray isn't installed")

ROWS = 40
SHARDS = 60
STORE_BYTES = 80 << 20  # Of each node's object store; the least that Ray takes is 75 MB.


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster whose head embeds nothing; tests add nodes."""
    head = {"num_cpus": 0, "object_store_memory": STORE_BYTES}
    cluster = utils.Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    cluster.shutdown()


def add_node(cluster: Any) -> Any:
    """Add a node with one CPU."""
    node = cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
    cluster.wait_for_nodes()
    return node


@pytest.fixture
def node(cluster: Any) -> Iterator[None]:
    """A node for one test."""
    added = add_node(cluster)
    yield
    cluster.remove_node(added)


def wait_for_shards(out: Path, count: int) -> None:
    """Wait until the job has made so many shards."""
    deadline = time.monotonic() + 60
    while len(list(out.glob("shard-*"))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.002)


@contextmanager
def stopped(job: subprocess.Popen[str]) -> Iterator[None]:
    """Halt the job, so that shards are left to make however long a node takes to come or go."""
    job.send_signal(signal.SIGSTOP)
    try:
        assert job.poll() is None, "the job was done before the nodes died"
        yield
    finally:
        job.send_signal(signal.SIGCONT)


def command(cluster: Any, bundle: Bundle, source: Path, out: Path) -> list[str]:
    """A job on the cluster."""
    where = ["--ray", cluster.address, "--bundle", str(bundle.folder), "--device", "cpu"]
    what = ["embed", str(source), "--out", str(out), "--shard-rows", str(ROWS)]
    return [sys.executable, "-m", "pinhole", *what, *where]


def test_nodes_die_and_join(cluster: Any, small_bundle: Bundle, tmp_path: Path) -> None:
    """Two nodes die, the third has joined late: every input once, numbers as in a local job."""
    first, second = add_node(cluster), add_node(cluster)
    images = np.random.default_rng(0).integers(0, 256, (ROWS * SHARDS - 7, 28, 28), np.uint8)
    np.save(tmp_path / "in.npy", images)
    out = tmp_path / "out"

    with subprocess.Popen(
        command(cluster, small_bundle, tmp_path / "in.npy", out), stderr=subprocess.PIPE, text=True
    ) as job:
        wait_for_shards(out, SHARDS // 6)
        with stopped(job):
            cluster.remove_node(first, allow_graceful=False)
            late = add_node(cluster)
        wait_for_shards(out, SHARDS // 3)
        with stopped(job):
            cluster.remove_node(second, allow_graceful=False)
        _, said = job.communicate(timeout=120)
    cluster.remove_node(late)

    assert job.returncode == 0, said
    shards = [pq.read_table(path) for path in sorted(out.glob("shard-*.parquet"))]
    rows = [row for shard in shards for row in shard.to_pylist()]
    assert [row["path"] for row in rows] == [str(number) for number in range(len(images))]
    expected = open_engine(small_bundle).embed(images[:, None])
    found = np.array([row["embedding"] for row in rows], np.float32)
    assert np.abs(found - expected).max() <= 1e-5 * expected.std()
    summary = json.loads((out / "_job.json").read_text())
    assert (summary["state"], summary["runner"], summary["rows"]) == ("done", "ray", len(images))


def test_failures_cost_exit_code_1_and_are_tried_again(
    cluster: Any, node: None, small_bundle: Bundle, tmp_path: Path
) -> None:
    """As in any other job; --retry-failed makes the missing shard and the failed row."""
    images = tmp_path / "images"
    images.mkdir()
    np.save(tmp_path / "x.npy", np.zeros((2, 28, 28), np.uint8))
    good = Path(__file__).parents[3] / "clients" / "examples" / "seven.png"
    for index in range(ROWS + 2):
        (images / f"{index:03}.png").write_bytes(b"no" if index == 3 else good.read_bytes())
    run = command(cluster, small_bundle, images, tmp_path / "out")

    first = subprocess.run(run, capture_output=True, text=True, timeout=120)
    (images / "003.png").write_bytes(good.read_bytes())
    (tmp_path / "out" / "shard-000001.parquet").unlink()
    second = subprocess.run([*run, "--retry-failed"], capture_output=True, text=True, timeout=120)

    assert (first.returncode, second.returncode) == (1, 0), first.stderr + second.stderr
    assert "failed: 1 InvalidImage" in first.stderr
    assert f"{ROWS + 2} images embedded" in second.stdout


def test_node_that_sees_something_else_is_named(
    cluster: Any, node: None, small_bundle: Bundle, tmp_path: Path
) -> None:
    """No cluster, no bundle, an array of another size: one line each, exit code 2."""
    np.save(tmp_path / "in.npy", np.zeros((5, 9, 9), np.uint8))
    good = command(cluster, small_bundle, tmp_path / "in.npy", tmp_path / "out")
    address = good.index(cluster.address)
    bundle = good.index("--bundle")
    for arguments, words in (
        (good, "the model takes uint8[N, 1, 28, 28]"),
        ([*good[:address], "127.0.0.1:9", *good[address + 1 :]], "no Ray cluster at 127.0.0.1:9"),
        ([*good[:bundle], *good[bundle + 2 :]], "--ray needs --bundle"),
    ):
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
        assert (done.returncode, words in done.stderr) == (2, True), done.stderr
