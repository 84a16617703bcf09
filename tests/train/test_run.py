"""A run's folder: what a stopped training goes on from."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.train.conftest import SMALL, fit
from train.card import describe
from train.dataset import Dataset
from train.errors import CheckpointError, ConfigError, Diverged
from train.evaluate import score
from train.loop import Trainer
from train.run import RunFolder


@pytest.mark.parametrize(("model", "optimiser"), [("ae", "adam"), ("vae", "muon")])
def test_resumed_run_has_the_numbers_of_an_uninterrupted_one(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, optimiser: str
) -> None:
    """Stop after two of four epochs, start again from disk: the same losses and weights."""
    config = replace(SMALL, model=model, optimiser=optimiser, layout=0.1)
    monkeypatch.setattr("train.layout.SAMPLE", 100)  # a map of 100 images takes a second
    whole = Trainer(config, digits)
    fit(whole)

    first = Trainer(config, digits)
    with RunFolder(tmp_path) as folder:
        for _ in range(2):
            folder.record(first.run_epoch(lambda count: None), first)
    second = Trainer(config, digits)
    RunFolder(tmp_path).resume(second)
    assert len(second.history) == 2
    fit(second)

    assert second.history == whole.history
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, second.model.state_dict()[name])


def test_resume_of_a_run_without_a_hyperparameter(digits: Dataset) -> None:
    """A hyperparameter that the run didn't know was at its default."""
    trainer, again = Trainer(SMALL, digits), Trainer(SMALL, digits)
    trainer.run_epoch(lambda count: None)
    state = trainer.state()
    del state["config"]["passes"]

    again.restore(state)
    assert again.run_epoch(lambda count: None) == trainer.run_epoch(lambda count: None)
    with pytest.raises(ConfigError, match="passes 1, not 2"):
        Trainer(replace(SMALL, passes=2), digits).restore(state)


def test_resume_refuses_another_run(digits: Dataset, tmp_path: Path) -> None:
    """A missing or damaged state, and a run of another configuration, are refused by name."""
    with pytest.raises(CheckpointError, match="nothing to resume"):
        RunFolder(tmp_path).check(resume=True)

    (tmp_path / "state.pt").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="is damaged"):
        RunFolder(tmp_path).resume(Trainer(SMALL, digits))

    trainer = Trainer(SMALL, digits)
    other = Trainer(replace(SMALL, augment=0.5), digits)
    with pytest.raises(ConfigError, match=r"augment 1\.0, not 0\.5"):
        other.restore(trainer.state())

    state = trainer.state()
    state["model"]["encoder.extra"] = state["model"].pop("encoder.to_embedding.bias")
    with pytest.raises(ConfigError, match="another network"):
        Trainer(SMALL, digits).restore(state)
    state = trainer.state()
    state["optimisers"][0]["param_groups"] *= 2
    with pytest.raises(ConfigError, match="another network"):
        Trainer(SMALL, digits).restore(state)

    shorter = replace(digits, train_images=digits.train_images[1:])
    with pytest.raises(ConfigError, match="images of the dataset have changed"):
        Trainer(SMALL, shorter).restore(trainer.state())


def test_a_damaged_state_is_refused(digits: Dataset, tmp_path: Path) -> None:
    """A flipped bit in a weight, and a file that lacks what a state has, are found out."""
    trainer, path = Trainer(SMALL, digits), tmp_path / "state.pt"
    with RunFolder(tmp_path) as folder:
        folder.record(trainer.run_epoch(lambda count: None), trainer)
    weight = trainer.state()["model"]["decoder.from_embedding.weight"].numpy().tobytes()
    whole = path.read_bytes()
    at = whole.index(weight)
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(CheckpointError, match="is damaged"):
        RunFolder(tmp_path).resume(Trainer(SMALL, digits))

    torch.save({"model": 1}, path)
    with pytest.raises(CheckpointError, match="is damaged"):
        RunFolder(tmp_path).resume(Trainer(SMALL, digits))


def test_a_run_that_patience_ended_can_be_given_more(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another patience goes on; one where there was none has no best weights to go back to."""
    impatient = replace(SMALL, patience=1)
    trainer = Trainer(impatient, digits)
    errors = iter([0.05, 0.06, 0.04])
    monkeypatch.setattr(Trainer, "_val_mse", lambda self: next(errors))
    while not trainer.finished:
        trainer.run_epoch(lambda count: None)
    assert (len(trainer.history), trainer.ended_early) == (2, True)

    patient = Trainer(replace(impatient, patience=2), digits)
    patient.restore(trainer.state())
    assert not patient.finished
    patient.run_epoch(lambda count: None)
    assert patient.best_epoch == 3
    with pytest.raises(ConfigError, match="patience 1, not 0"):
        Trainer(SMALL, digits).restore(trainer.state())


@pytest.mark.parametrize("name", ["settings.json", "metrics.jsonl"])
def test_files_that_no_training_wrote_are_kept(tmp_path: Path, name: str) -> None:
    """A file of the user's own isn't written over; a killed run's is."""
    (tmp_path / name).write_text('{"mine": 1}')
    with pytest.raises(CheckpointError, match="no training wrote"):
        RunFolder(tmp_path).check(resume=False)

    with RunFolder(tmp_path) as folder:
        folder.check(resume=False)


def test_a_folder_that_is_gone_is_not_written_to(digits: Dataset, tmp_path: Path) -> None:
    """A run whose folder was removed, and begun anew by another run, ends there."""
    trainer, place = Trainer(SMALL, digits), tmp_path / "run"
    epoch = trainer.run_epoch(lambda count: None)
    with RunFolder(place) as folder:
        shutil.rmtree(place)
        with pytest.raises(CheckpointError, match="removed or replaced"):
            folder.record(epoch, trainer)
        assert not place.exists()

        with RunFolder(place) as another:
            another.record(epoch, trainer)
            with pytest.raises(CheckpointError, match="removed or replaced"):
                folder.record(epoch, trainer)


def test_validation_images_stay_the_same(digits: Dataset) -> None:
    """Images that are grouped in another way than before the restart are other images."""
    groups = torch.arange(len(digits.train_images)) // 3
    trainer = Trainer(SMALL, replace(digits, train_groups=groups))

    with pytest.raises(ConfigError, match="images of the dataset have changed"):
        Trainer(SMALL, replace(digits, train_groups=groups.flip(0))).restore(trainer.state())


def test_a_longer_run_says_how_it_was_made(digits: Dataset) -> None:
    """The schedule knew another number of epochs at first, so one command wouldn't repeat it."""
    first = Trainer(replace(SMALL, epochs=1), digits)
    fit(first)
    second = Trainer(replace(SMALL, epochs=2), digits)
    second.restore(first.state())

    found = describe(second, digits, score(second.model, digits), None)

    made = found["made_with"]["command"]
    assert "--epochs 1" in made
    assert made.endswith("; after 1 epochs --resume --epochs 2")


def test_diverged_run_keeps_its_last_good_state(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state on disk is that after the last epoch with a finite loss."""
    trainer = Trainer(replace(SMALL, learning_rate=1e-3), digits)
    with RunFolder(tmp_path) as folder:
        folder.record(trainer.run_epoch(lambda count: None), trainer)
        monkeypatch.setattr("train.loop.learning_rate", lambda *_: 1e30)
        with pytest.raises(Diverged):
            fit(trainer)

    again = Trainer(replace(SMALL, learning_rate=1e-3), digits)
    RunFolder(tmp_path).resume(again)
    assert len(again.history) == 1
    assert all(torch.isfinite(part).all() for part in again.model.parameters())


def test_full_disk_keeps_the_state(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state that can't be written leaves the previous state on disk, and no draft."""
    trainer = Trainer(SMALL, digits)
    with RunFolder(tmp_path) as folder:
        folder.record(trainer.run_epoch(lambda count: None), trainer)
    before = (tmp_path / "state.pt").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"), RunFolder(tmp_path) as folder:
        folder.record(trainer.run_epoch(lambda count: None), trainer)

    assert (tmp_path / "state.pt").read_bytes() == before
    assert not (tmp_path / "state.pt.draft").exists()


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    """The second of two trainings in one folder is refused until the first has ended."""
    with (
        RunFolder(tmp_path),
        pytest.raises(CheckpointError, match="another training is at work"),
        RunFolder(tmp_path),
    ):
        pass
    with RunFolder(tmp_path):
        pass
