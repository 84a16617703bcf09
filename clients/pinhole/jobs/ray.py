"""The runner past one machine: Ray Data, with a pool of actors that hold an engine each.

An item of Ray's data set is the number of a shard. An actor reads the shard's inputs itself, embeds
them, and writes the shard to the job's folder, which every node sees, under the same names and with
the same columns as any other runner. So a job that was begun here may be finished there; and a
shard that was on a node that died is made by another.
"""

import logging
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError

from pinhole.jobs.errors import JobError
from pinhole.jobs.folder import JOB, check
from pinhole.jobs.job import Done, OnRows, Todo, complete, make
from pinhole.jobs.known import Known
from pinhole.jobs.local import LocalRunner
from pinhole.jobs.shards import Identity
from pinhole.jobs.sources.opening import open_source

CONNECT_S = 10.0

Batch = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Order:
    """What every actor is told.

    Attributes:
        identity: of the job.
        source: as every node finds it.
        folder: for the shards; every node sees it under this name.
        column: see open_source.
        bundle: likewise for every node.
        device: see LocalRunner.
        readers: threads that read files, of each actor.
    """

    identity: Identity
    source: str
    folder: Path
    column: str | None
    bundle: Path
    device: str
    readers: int


class ShardMaker:
    """An actor: a source, an engine, and what it has embedded so far.

    A JobError is returned, not raised: Ray would keep its words to itself.
    """

    def __init__(self, order: Order) -> None:
        self._order, self._known, self._fault = order, Known(), ""
        try:
            self._open()
        except JobError as error:
            self._fault = str(error)

    def _open(self) -> None:
        """Open what every node must see alike.

        Raises:
            JobError: this node sees another source, or model, than the one who began the job.
        """
        order, identity = self._order, self._order.identity
        precision, score = identity.model.precision, identity.score
        self._runner = LocalRunner(order.bundle, order.device, precision, score, cores=1)
        self._source = open_source(order.source, order.column)
        node = ray.get_runtime_context().get_node_id()
        if not (order.folder / JOB).exists():
            raise JobError(f"on node {node}, {order.folder} isn't this job's: OUT must be shared")
        check(order.folder, identity)
        if self._runner.model != identity.model:
            raise JobError(f"on node {node}, {order.bundle} holds another model")
        if self._source.digest != identity.list_digest:
            raise JobError(f"on node {node}, {order.source} holds other inputs")

    def __call__(self, batch: Batch) -> Batch:
        """Make these shards; returns how many rows that were, and why there aren't more."""
        rows: list[int] = []
        try:
            for shard, retry in zip(batch["shard"], batch["retry"], strict=True):
                self._make(int(shard), bool(retry), rows.append)
        except JobError as error:
            self._fault = str(error)
        return {"rows": np.array([sum(rows)]), "fault": np.array([self._fault])}

    def _make(self, shard: int, retry: bool, on_rows: OnRows) -> None:
        """Make one shard."""
        if self._fault:
            raise JobError(self._fault)
        order, known = self._order, self._known
        todo = Todo([] if retry else [shard], [shard] if retry else [], 0)
        make(
            self._source,
            order.identity,
            self._runner,
            order.folder,
            todo,
            known,
            on_rows,
            order.readers,
        )


def run_on_ray(order: Order, workers: int | None, retry: bool, on_rows: OnRows) -> Done:
    """Have a cluster, which this process is connected to, make what is left of a job.

    Args:
        order: for every actor.
        workers: the most actors; None is one for each CPU of the cluster, or GPU for ``cuda``.
        retry: see run_job.
        on_rows: see run_job.

    Raises:
        JobError: an actor can't work, or too many of them died.
    """

    def work(todo: Todo) -> None:
        """Have the actors make it."""
        if not todo.rows:
            return
        for row in data_set(order, todo, workers).iter_rows():
            on_rows(int(row["rows"]))
            if row["fault"]:
                raise JobError(str(row["fault"]))

    try:
        return complete(order.identity, "ray", order.folder, retry, on_rows, work)
    except RayError as error:
        raise JobError(f"Ray gave up: {reason(error)}") from error


def data_set(order: Order, todo: Todo, workers: int | None) -> "ray.data.Dataset":
    """The shards that are to be made, and who makes them."""
    DataContext.get_current().enable_progress_bars = False  # ours shows rows
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    kind = "GPU" if order.device == "cuda" else "CPU"
    most = workers or max(1, int(resources.get(kind, 1)))
    items = [{"shard": shard, "retry": False} for shard in todo.missing]
    items += [{"shard": shard, "retry": True} for shard in todo.retried]
    return ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        ShardMaker,
        fn_constructor_args=(order,),
        batch_size=1,
        compute=ActorPoolStrategy(min_size=1, max_size=min(most, len(items))),
        num_cpus=1,
        num_gpus=1 if kind == "GPU" else 0,
    )


@contextmanager
def connected(address: str) -> Iterator[None]:
    """A connection to a cluster; ``local`` starts one on this host.

    Raises:
        JobError: there is none.
    """
    try:
        if ":" in address:  # Ray itself would try for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), CONNECT_S).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RayError, RuntimeError, ValueError) as error:
        raise JobError(f"no Ray cluster at {address}: {reason(error)}") from error
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what matters is raised too
    try:
        yield
    finally:
        ray.shutdown()


def reason(error: Exception) -> str:
    """The words that matter: Ray wraps what a worker raises in pages of its own."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return next((line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)), lines[0])
