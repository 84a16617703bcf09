"""A run folder: what a training run writes while it goes, and resumes from.

metrics.jsonl        a line for each epoch
events.out.tfevents… the same numbers for TensorBoard
settings.json        the run's options, which --resume takes up
state.pt             the state after the newest epoch that was saved; --resume reads it
checkpoint/          the result, once the run is done
pictures/            pictures of the result
"""

import fcntl
import io
import json
import os
import socket
import time
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import ZipFile

import torch
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from train.checkpoint import DAMAGED
from train.errors import CheckpointError
from train.loop import Epoch, Trainer

SETTINGS = "settings.json"
METRICS = "metrics.jsonl"
STATE = "state.pt"
OUTPUTS = (STATE, "checkpoint", "pictures")
SAVE_EVERY_S = 20.0  # shortest time between two saved states; an epoch may take under a second


class RunFolder:
    """Writes the files of a run. On exit, its context saves the state after the newest epoch.

    Args:
        folder: need not exist. Within the context it does, and no other run may use it.

    Raises:
        CheckpointError: on entering the context, another run is at work in the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock_file = folder / ".lock"
        self._state: dict[str, Any] | None = None
        self._saved_at = 0.0
        self._events: Events | None = None

    def __enter__(self) -> "RunFolder":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self._lock_file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise CheckpointError(f"another training is at work in {self.folder}") from error
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.save_state()
        finally:
            os.close(self._lock)

    def check(self, resume: bool) -> None:
        """Check that there is a run to go on with, or that a new run would write over nothing.

        Raises:
            CheckpointError: the folder can't be written to; to resume, it holds no state; to begin,
                it holds the state of a run, or its result, or a file that isn't a run's.
        """
        nearest = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
            raise CheckpointError(f"{nearest} can't be written to: name another --out")
        if resume and not (self.folder / STATE).exists():
            raise CheckpointError(f"nothing to resume: {self.folder / STATE} is missing")
        strange = [name for name in (SETTINGS, METRICS) if (self.folder / name).exists()]
        if not resume and strange and not self._lock_file.exists():
            raise CheckpointError(
                f"{self.folder} holds a {strange[0]} that no training wrote: name another --out"
            )
        found = [name for name in OUTPUTS if (self.folder / name).exists()]
        if not resume and found:
            raise CheckpointError(
                f"{self.folder} holds {found[0]} of an earlier run: --resume goes on with that "
                "run, and with another --out it stays as it is"
            )

    def check_own(self) -> None:
        """Check that the folder is still this run's: it may have been removed or moved meanwhile.

        Raises:
            CheckpointError: it isn't.
        """
        locked = os.fstat(self._lock)
        if not (self._lock_file.exists() and os.path.samestat(locked, self._lock_file.stat())):
            raise CheckpointError(
                f"{self.folder} was removed or replaced while this run was at work"
            )

    def resume(self, trainer: Trainer) -> None:
        """Bring a fresh trainer to where the run in this folder stopped.

        Raises:
            CheckpointError: the folder's state is damaged.
            ConfigError: the run had another configuration, dataset or device.
        """
        path = self.folder / STATE
        try:
            with ZipFile(path) as file:  # torch doesn't compare the checksums
                if broken := file.testzip():
                    raise CheckpointError(f"{path} is damaged: {broken} has another checksum")
            trainer.restore(torch.load(path, weights_only=True, map_location="cpu"))
        except (*DAMAGED, LookupError, UnpicklingError) as error:
            raise CheckpointError(f"{path} is damaged: {error}") from error
        self._write_metrics(trainer.history)

    def keep_settings(self, settings: dict[str, Any]) -> None:
        """Write down the run's options, name → value, for ``read_settings``."""
        self._write_whole(SETTINGS, (json.dumps(settings, indent=2) + "\n").encode())

    def start_afresh(self) -> None:
        """Begin the metrics of a new run."""
        self._write_metrics([])

    def record(self, epoch: Epoch, trainer: Trainer) -> None:
        """Write the metrics of an epoch, and the state if the last save is long enough ago."""
        self.keep(trainer)
        with (self.folder / METRICS).open("a") as file:
            file.write(json.dumps(asdict(epoch)) + "\n")
        if self._events is not None:
            self._events.add(epoch)

    def keep(self, trainer: Trainer) -> None:
        """Take a trainer's state, and save it if the last save is long enough ago.

        Raises:
            CheckpointError: see check_own.
        """
        self.check_own()
        self._state = trainer.state()
        if time.monotonic() - self._saved_at > SAVE_EVERY_S:
            self.save_state()

    def save_state(self) -> None:
        """Write the newest state whole, or leave the state on disk as it is.

        Raises:
            CheckpointError: see check_own.
        """
        if self._state is None:
            return
        self.check_own()
        content = io.BytesIO()
        torch.save(self._state, content)  # its own writing takes a full disk for a fault of torch
        self._write_whole(STATE, content.getbuffer())
        self._state, self._saved_at = None, time.monotonic()

    def _write_whole(self, name: str, content: bytes | memoryview) -> None:
        draft = self.folder / f"{name}.draft"
        try:
            with draft.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.folder / name)
        finally:
            draft.unlink(missing_ok=True)

    def _write_metrics(self, history: list[Epoch]) -> None:
        lines = [json.dumps(asdict(epoch)) + "\n" for epoch in history]
        (self.folder / METRICS).write_text("".join(lines))
        self._events = Events(self.folder, len(history) + 1)


class Events:
    """A file of events for TensorBoard.

    torch's SummaryWriter writes in a thread of its own, which Ctrl-C can leave waiting for minutes.

    Args:
        folder: of the run.
        first: the number of the epoch that comes next; TensorBoard forgets it and all after it.
    """

    def __init__(self, folder: Path, first: int) -> None:
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / name
        self._write(file_version="brain.Event:2")
        self._write(step=first, session_log=SessionLog(status=SessionLog.START))

    def add(self, epoch: Epoch) -> None:
        """Write the errors of an epoch."""
        errors = {"train_mse": epoch.train_mse, "val_mse": epoch.val_mse}
        values = [
            Summary.Value(tag=name, simple_value=error)
            for name, error in errors.items()
            if error is not None
        ]
        self._write(step=epoch.epoch, summary=Summary(value=values))

    def _write(self, **fields: Any) -> None:
        with self._path.open("ab") as file:
            RecordWriter(file).write(Event(wall_time=time.time(), **fields).SerializeToString())


def read_settings(folder: Path) -> dict[str, Any]:
    """The options of the run in ``folder``, name → value.

    Raises:
        CheckpointError: there is no run to resume, or the file that holds them is damaged.
    """
    path = folder / SETTINGS
    try:
        settings = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"nothing to resume: {path} is missing") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path} is damaged: it holds no options")
    return settings


def newest_run(runs: Path) -> Path | None:
    """The folder in ``runs`` whose training saved its state last; None if none did."""
    states = sorted(runs.glob(f"*/{STATE}"), key=lambda path: path.stat().st_mtime)
    return states[-1].parent if states else None
