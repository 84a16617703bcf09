"""Makes shards on more than one machine: Ray Data, with a pool of actors that hold an engine each.

An item of Ray's data set is the number of a shard. An actor reads the shard's inputs itself, embeds
them, and writes the shard to the job's folder. Every node sees that folder under the same name, and
the shard has the same columns as in any other job. So a job that was begun on one machine may be
finished on a cluster, and a shard that was on a node that died is made by another node.
"""

import logging
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError

from pinhole.jobs.errors import JobError
from pinhole.jobs.folder import is_own
from pinhole.jobs.job import Job, OnRows
from pinhole.jobs.known import Known
from pinhole.jobs.making import learn, make_shards
from pinhole.jobs.pipeline import Made, Pipeline
from pinhole.jobs.runners import Model
from pinhole.jobs.shards import shard_path, use_little_memory
from pinhole.jobs.sources.opening import open_source
from serve.bundle.distribution import missing_module
from serve.bundle.errors import BundleError
from serve.bundle.manifest import load_bundle

CONNECT_S = 10.0
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report its use to its makers.

Batch = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Setup:
    """What every actor opens for itself; every node sees the paths under the same names.

    Attributes:
        source: see open_source.
        column: see open_source.
        bundle: the folder of the model.
        device: see LocalRunner.
        readers: threads that read files, in each actor.
    """

    source: str
    column: str | None
    bundle: Path
    device: str
    readers: int


@dataclass(frozen=True)
class RayCluster:
    """Embeds by a cluster that this process is connected to; see ShardMaker.

    Attributes:
        setup: for every actor.
        model: the bundle's.
        workers: the most actors; None means one for each CPU of the cluster, or for each GPU where
            the device is ``cuda``.
    """

    setup: Setup
    model: Model
    workers: int | None = None
    name: str = "ray"

    def make(self, job: Job, shards: Sequence[int], on_rows: OnRows) -> Made:
        """See ShardMaker.

        Raises:
            JobError: an actor can't work, or too many actors died.
        """
        made = Made()
        try:
            sink = replace(job.sink, path=job.sink.path.absolute())
            for row in self._data_set(replace(job, sink=sink), shards).iter_rows():
                on_rows(int(row["rows"]))
                made.read += int(row["read"])
                made.embedded += int(row["embedded"])
                if row["fault"]:
                    raise JobError(str(row["fault"]))
        except RayError as error:
            raise JobError(f"Ray gave up: {reason(error)}") from error
        return made

    def _data_set(self, job: Job, shards: Sequence[int]) -> "ray.data.Dataset":
        """The shards to make, mapped by the actors that make them."""
        # The command's own progress bar counts rows; Ray's would count shards beside it.
        DataContext.get_current().enable_progress_bars = False
        items = [{"shard": shard} for shard in shards]
        return ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            Actor,
            fn_constructor_args=(self.setup, job),
            batch_size=1,
            # Ray adds actors as long as the cluster has room, on nodes that join late too.
            compute=ActorPoolStrategy(min_size=1, max_size=self.workers),
            num_cpus=1,
            num_gpus=1 if self.setup.device == "cuda" else 0,
        )


class Actor:
    """Makes shards on one node: a source, an engine, and what it has embedded so far.

    A JobError is returned, not raised: Ray would hide its message.
    """

    def __init__(self, setup: Setup, job: Job) -> None:
        use_little_memory()
        self._setup, self._job, self._known, self._fault = setup, job, Known(), ""
        try:
            self._open()
        except ImportError as error:
            self._fault = f"on node {node_id()}, {missing_module('--ray', error)}"
        except JobError as error:
            self._fault = str(error)

    def _open(self) -> None:
        """Open what every node must see alike.

        Raises:
            ImportError: the node lacks a module.
            JobError: the node sees another source, model or OUT than the host that began the job.
        """
        # Imported here because only the nodes that embed need a runtime and Pillow.
        from pinhole.jobs.local import LocalRunner

        setup, job, identity = self._setup, self._job, self._job.identity
        precision, score = identity.model.precision, identity.score
        self._runner = LocalRunner(setup.bundle, setup.device, precision, score, cores=1)
        self._source = open_source(setup.source, setup.column)
        if not is_own(job.sink.folder, identity):
            raise JobError(
                f"on node {node_id()}, {job.sink.folder} isn't this job's: OUT must be shared"
            )
        if self._runner.model != identity.model:
            raise JobError(f"on node {node_id()}, {setup.bundle} holds another model")
        if self._source.digest != identity.list_digest:
            raise JobError(f"on node {node_id()}, {setup.source} holds other inputs")
        learn(self._known, job, job.earlier())

    def __call__(self, batch: Batch) -> Batch:
        """Make these shards; returns the numbers of rows, and why the rest wasn't made."""
        job, made, rows = self._job, Made(), list[int]()
        shards = [int(shard) for shard in batch["shard"]]
        if not self._fault:
            pipeline = Pipeline(self._source, self._runner, self._known, self._setup.readers, made)
            try:
                learn(self._known, job, [shard_path(job.sink.folder, each) for each in shards])
                make_shards(job, shards, pipeline, rows.append)
            except JobError as error:
                self._fault = str(error)
        numbers = {"rows": sum(rows), "read": made.read, "embedded": made.embedded}
        return {
            "fault": np.array([self._fault]),
            **{key: np.array([number]) for key, number in numbers.items()},
        }


def model_of(folder: Path, precision: str) -> Model:
    """What a bundle embeds with, without opening an engine.

    Raises:
        JobError: the bundle is damaged, or isn't offered in this precision.
    """
    try:
        manifest = load_bundle(folder).manifest
    except BundleError as error:
        raise JobError(str(error)) from error
    if precision not in manifest.tolerances:
        raise JobError(
            f"this model is offered in {', '.join(manifest.tolerances)}, not {precision}"
        )
    return Model(manifest.digest, precision, manifest.embedding_width, manifest.image)


@contextmanager
def connected(address: str) -> Iterator[None]:
    """A connection to a cluster; ``local`` starts a cluster on this host.

    Raises:
        JobError: there is no cluster at this address.
    """
    try:
        if ":" in address:  # Ray itself would try for minutes to reach a host that isn't there.
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), CONNECT_S).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RayError, RuntimeError, ValueError) as error:
        raise JobError(f"no Ray cluster at {address}: {reason(error)}") from error
    # Ray Data also logs every error that it raises; the user would read each twice.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        ray.shutdown()


def node_id() -> str:
    """Ray's name of the node that this process runs on."""
    return ray.get_runtime_context().get_node_id()


def reason(error: Exception) -> str:
    """The line that matters: Ray wraps what a worker raises in pages of its own."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return next((line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)), lines[0])
