"""A run folder: what a training run leaves behind while it goes, and resumes from.

metrics.jsonl        one line for each epoch
events.out.tfevents… the same for TensorBoard
state.pt             where to resume from: the newest epoch that was saved
checkpoint/          the result, once the run is done
pictures/            what it looks like
"""

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from train.errors import CheckpointError
from train.loop import Epoch, Trainer

SAVE_EVERY_S = 20.0


class RunFolder:
    """Writes the files of one run; use as a context, which saves the last state on the way out.

    Args:
        folder: made by start_afresh.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._state: dict[str, Any] | None = None
        self._saved_at = 0.0
        self._events: SummaryWriter | None = None

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._save()
        finally:
            if self._events is not None:
                self._events.close()

    def resume(self, trainer: Trainer) -> None:
        """Bring a fresh trainer to where the run in this folder stopped.

        Raises:
            CheckpointError: there is nothing to resume, or it is damaged.
            ConfigError: the run was of another configuration.
        """
        path = self.folder / "state.pt"
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
        except FileNotFoundError as error:
            raise CheckpointError(f"nothing to resume: {path} is missing") from error
        except (OSError, RuntimeError, EOFError, ValueError, LookupError, UnpicklingError) as error:
            raise CheckpointError(f"{path} is damaged: {error}") from error
        trainer.restore(state)
        self._write_metrics(trainer.history)

    def start_afresh(self) -> None:
        """Forget what an earlier run in this folder wrote down, bar its result."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for stale in (self.folder / "state.pt", *self.folder.glob("events.out.tfevents.*")):
            stale.unlink(missing_ok=True)
        self._write_metrics([])

    def record(self, epoch: Epoch, trainer: Trainer) -> None:
        """Write an epoch down, and its state if the last one written is old enough."""
        self._state = trainer.state()
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(asdict(epoch)) + "\n")
        for name in ("train_mse", "val_mse"):
            value = getattr(epoch, name)
            if value is not None and self._events is not None:
                self._events.add_scalar(name, value, epoch.epoch)
        if time.monotonic() - self._saved_at > SAVE_EVERY_S:
            self._save()

    def _save(self) -> None:
        """Write the newest state whole, or leave the one on disk as it is."""
        if self._state is None:
            return
        draft = self.folder / "state.pt.draft"
        try:
            with draft.open("wb") as file:
                torch.save(self._state, file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.folder / "state.pt")
        finally:
            draft.unlink(missing_ok=True)
        self._state, self._saved_at = None, time.monotonic()

    def _write_metrics(self, history: list[Epoch]) -> None:
        self._events = SummaryWriter(str(self.folder), purge_step=len(history) + 1)
        lines = [json.dumps(asdict(epoch)) + "\n" for epoch in history]
        (self.folder / "metrics.jsonl").write_text("".join(lines))
