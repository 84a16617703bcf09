"""``python -m train`` as a whole, on scikit-learn's digits."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bench.own_pictures import make_pictures
from train.__main__ import check_effective, main, parse
from train.checkpoint import load_checkpoint
from train.config import RECIPES, TrainConfig
from train.dataset import Dataset
from train.digits import load_digits
from train.errors import CheckpointError
from train.loop import Epoch, Trainer
from train.run import RunFolder


def test_training_learns(trained: Path) -> None:
    """The loss falls, and the card says how far."""
    card = json.loads((trained / "card.json").read_text())

    losses = [epoch["val_mse"] for epoch in card["history"]]
    assert len(losses) == 3
    assert losses[2] < losses[0]
    assert card["metrics"]["mse"] < 0.06  # answering with the mean pixel gives 0.096


def test_few_pictures_beat_pca(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """50 pictures of three kinds, with the recipe for pictures: below PCA of as many numbers."""
    make_pictures(tmp_path / "pictures", 50, 28, colour=False)
    options = ["--dataset", "folder", "--data-dir", str(tmp_path / "pictures")]

    assert main([*options, "--hidden-dim", "32", "--out", str(tmp_path / "run")]) == 0

    metrics = load_checkpoint(tmp_path / "run" / "checkpoint").card["metrics"]
    assert metrics["mse"] < metrics["pca_mse"]
    assert "% below that of PCA with 2 numbers" in capsys.readouterr().out


def test_the_end_says_what_the_model_is_worth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model of a few steps is told apart from PCA and from the mean image, and what to try."""
    options = ["--dataset", "digits", "--hidden-dim", "16", "--epochs", "1", "--out", str(tmp_path)]

    assert main(options) == 0

    said = capsys.readouterr().out
    assert "% above that of PCA with 2 numbers, and " in said
    assert "to try: a longer run: 9 steps are few" in said
    assert "of the variance; 80 % takes " in said


def test_checkpoint_is_there_before_it_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever happens while the model is judged, its checkpoint can be loaded; resume judges.

    Until the judgement is written no other training may use the folder.
    """
    options = ["--dataset", "digits", "--hidden-dim", "4", "--epochs", "1", "--out", str(tmp_path)]

    def fails(*_: object) -> None:
        with pytest.raises(CheckpointError, match="another training is at work"):
            RunFolder(tmp_path).__enter__()
        assert (tmp_path / "state.pt").exists()
        raise OSError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr("train.__main__.fit_pca", fails)
        assert main(options) == 1
    assert set(load_checkpoint(tmp_path / "checkpoint").card["metrics"]) == {"mse"}

    assert main(["--resume", "--out", str(tmp_path)]) == 0
    assert "pca_mse" in load_checkpoint(tmp_path / "checkpoint").card["metrics"]


def test_ctrl_c_saves_and_resume_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run interrupted in its third epoch exits 130 and resumes after the second epoch."""
    options = ["--dataset", "digits", "--hidden-dim", "4", "--epochs", "4", "--out", str(tmp_path)]
    run_epoch = Trainer.run_epoch

    def interrupted(self: Trainer, on_batch: Callable[[int], None]) -> Epoch:
        if len(self.history) == 2:
            raise KeyboardInterrupt
        return run_epoch(self, on_batch)

    monkeypatch.setattr(Trainer, "run_epoch", interrupted)
    assert main(options) == 130
    assert "stopped after 2 of 4 epochs" in capsys.readouterr().err
    assert not (tmp_path / "checkpoint").exists()

    monkeypatch.setattr(Trainer, "run_epoch", run_epoch)
    assert main([*options, "--resume"]) == 0
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        "losses.png",
        "manifold.png",
        "map.png",
        "reconstructions.png",
    }
    events = EventAccumulator(str(tmp_path)).Reload()
    shown = {event.step: event.value for event in events.Scalars("train_mse")}
    written = {row["epoch"]: row["train_mse"] for row in map(json.loads, lines)}
    assert shown == pytest.approx(written)


def test_resume_alone_takes_up_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--resume without any other option goes on with the newest run as it was begun."""
    monkeypatch.chdir(tmp_path)
    run_epoch = Trainer.run_epoch

    def interrupted(self: Trainer, on_batch: Callable[[int], None]) -> Epoch:
        if len(self.history) == 1:
            raise KeyboardInterrupt
        return run_epoch(self, on_batch)

    monkeypatch.setattr(Trainer, "run_epoch", interrupted)
    options = ["--dataset", "digits", "--recipe", "seed", "--hidden-dim", "4", "--epochs", "3"]
    assert main([*options, "--batch-size", "256"]) == 130

    monkeypatch.setattr(Trainer, "run_epoch", run_epoch)
    assert main(["--resume"]) == 0
    config = load_checkpoint(Path("runs/digits/checkpoint")).card["config"]
    expected = {"dataset": "digits", "hidden_dim": 4, "epochs": 3, "batch_size": 256, "layout": 0}
    assert {name: config[name] for name in expected} == expected

    capsys.readouterr()
    assert main(["--resume", "--out", "runs/digits", "--hidden-dim", "8"]) == 1
    assert "had hidden_dim 4, not 8" in capsys.readouterr().err
    Path("runs/digits/settings.json").write_text("{")
    assert main(["--resume"]) == 1
    assert "settings.json is damaged" in capsys.readouterr().err


def test_resume_knows_the_defaults_of_the_run(tmp_path: Path) -> None:
    """A hyperparameter that the run didn't know has no other value because its recipe has now."""
    settings = {"recipe": "best", "epochs": 80}
    (tmp_path / "settings.json").write_text(json.dumps(settings))

    options = parse(["--resume", "--out", str(tmp_path)])

    assert (options.recipe, options.epochs, options.optimiser) == ("best", 80, "adam")


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", [1]), ("epochs", 5.5), ("seed", True), ("data_dir", None), ("framing", "foo")],
)
def test_resume_names_a_damaged_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, value: object
) -> None:
    """A settings.json that was edited by hand costs one line."""
    (tmp_path / "settings.json").write_text(json.dumps({name: value}))

    assert main(["--resume", "--out", str(tmp_path)]) == 1

    said = capsys.readouterr().err
    assert said == f"train: {tmp_path}/settings.json is damaged: {name} is {value!r}\n"


def test_resume_needs_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a run that saved its state, nothing is read or written, nor a dataset downloaded."""
    monkeypatch.chdir(tmp_path)

    for options, fault in (([], "no run in runs"), (["--out", "a"], "a/settings.json is missing")):
        assert main(["--resume", *options]) == 1
        assert f"nothing to resume: {fault}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_is_not_begun_over_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command again keeps what there is, and names the two ways on."""
    options = ["--dataset", "digits", "--hidden-dim", "4", "--epochs", "1", "--out", str(tmp_path)]
    assert main(options) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()

    monkeypatch.setattr("train.__main__.load_dataset", None)  # nothing is even read
    assert main(options) == 1

    told = capsys.readouterr().err
    assert "holds state.pt of an earlier run: --resume goes on" in told
    assert "another --out" in told
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_that_ends_in_the_meantime_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run whose folder another run has used while the images were read writes over nothing."""

    def read_slowly(*_: object) -> Dataset:
        (tmp_path / "state.pt").write_bytes(b"another's")
        return load_digits()

    monkeypatch.setattr("train.__main__.load_dataset", read_slowly)
    assert main(["--dataset", "digits", "--hidden-dim", "4", "--out", str(tmp_path)]) == 1

    assert "holds state.pt of an earlier run" in capsys.readouterr().err
    assert (tmp_path / "state.pt").read_bytes() == b"another's"


def test_a_run_without_an_epoch_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C in the first epoch leaves nothing to resume, and nothing in the way."""
    options = ["--recipe", "seed", "--dataset", "digits", "--epochs", "1", "--out", str(tmp_path)]
    with monkeypatch.context() as interrupted:
        interrupted.setattr(Trainer, "run_epoch", raise_interrupt)
        assert main(options) == 130
    assert "nothing to resume" in capsys.readouterr().err
    assert main([*options, "--resume"]) == 1

    assert main(options) == 0


def test_a_map_is_drawn_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C in the first epoch costs minutes less where the map, t-SNE's, was drawn before."""
    options = ["--recipe", "best", "--dataset", "digits", "--hidden-dim", "4", "--epochs", "1"]
    monkeypatch.setattr("train.layout.SAMPLE", 100)
    with monkeypatch.context() as interrupted:
        interrupted.setattr(Trainer, "_shuffled", raise_interrupt)
        assert main([*options, "--out", str(tmp_path)]) == 130
    assert "stopped after 0 of 1 epochs; --resume continues" in capsys.readouterr().err

    monkeypatch.setattr("train.layout.draw_map", None)
    assert main(["--resume", "--out", str(tmp_path)]) == 0


def raise_interrupt(*_: object) -> None:
    """What Ctrl-C does."""
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--recipe", "seed"], "recipe pictures, not seed"),
        (["--framing", "stretch"], "framing pad, not stretch"),
        (["--split-by", "folder"], "split_by image, not folder"),
    ],
)
def test_resume_takes_no_other_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], fault: str
) -> None:
    """What decided how the run began can't be told otherwise afterwards."""
    settings = {"recipe": "pictures", "dataset": "folder", "framing": "pad", "split_by": "image"}
    (tmp_path / "settings.json").write_text(json.dumps(settings))

    assert main(["--resume", "--out", str(tmp_path), *options]) == 1
    assert capsys.readouterr().err == f"train: the run to resume had {fault}\n"


def test_a_run_does_not_learn_its_own_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run folder among the images is refused before they are read."""
    images = tmp_path / "images"
    make_pictures(images, 20, 12, colour=False)

    for out in (images, images / "run"):
        assert main(["--dataset", "folder", "--data-dir", str(images), "--out", str(out)]) == 1
        assert "name another --out" in capsys.readouterr().err
    assert {path.name for path in images.iterdir()} == {"clouds", "discs", "stripes"}


@pytest.mark.parametrize(
    ("options", "need"),
    [
        (["--layout", "0.2", "--output-dim", "3"], "--layout needs --output-dim 2 or less"),
        (["--kl-weight", "9"], "--kl-weight needs --model vae"),
        (["--patience", "1", "--fit-on", "all"], "--patience needs --fit-on split"),
        (["--warps", "photograph", "--augment", "0"], "--warps needs --augment"),
    ],
)
def test_options_without_effect_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], need: str
) -> None:
    """A run doesn't go on as if it had understood; a recipe's own values may be of no use."""
    assert main(["--dataset", "digits", *options, "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"train: {need}\n"
    assert not list(tmp_path.iterdir())

    check_effective(TrainConfig(**RECIPES["best"] | {"output_dim": 3}), "best")


def test_memory_that_is_short_costs_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Torch and numpy say it in different ways; any other RuntimeError is a fault of ours."""
    for error in (RuntimeError("can't allocate memory"), MemoryError("8 TiB")):
        monkeypatch.setattr("train.__main__.load_dataset", Mock(side_effect=error))
        assert main(["--dataset", "digits", "--out", str(tmp_path)]) == 1
        assert capsys.readouterr().err.startswith("train: not enough memory: fewer images")

    monkeypatch.setattr("train.__main__.load_dataset", Mock(side_effect=RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        main(["--dataset", "digits", "--out", str(tmp_path)])


def test_a_run_folder_that_cannot_be_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file is no folder; that is said before thousands of images are read."""
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr("train.__main__.load_dataset", None)

    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        assert main(["--dataset", "digits", "--out", str(out)]) == 1
        told = capsys.readouterr().err
        assert told == f"train: {tmp_path / 'file'} can't be written to: name another --out\n"


def test_a_full_disk_tells_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the run folder and the way on."""
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr("train.__main__.save_checkpoint", Mock(side_effect=full))
    options = ["--recipe", "seed", "--dataset", "digits", "--epochs", "1", "--hidden-dim", "4"]

    assert main([*options, "--out", str(tmp_path)]) == 1

    told = capsys.readouterr().err
    assert f"No space left on device, at work in {tmp_path}; --resume continues" in told


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "holds images ({images}/"),
        (["--framing", "ink"], "--framing needs --dataset folder"),
        (["--skip-unreadable"], "--skip-unreadable needs --dataset folder"),
        (["--dataset", "digits", "--split-by", "prefix"], "--split-by needs --dataset folder"),
    ],
)
def test_own_images_are_not_taken_for_mnist(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    """Without --dataset folder nothing is downloaded into a folder of images, nor ignored."""
    images = tmp_path / "images"
    make_pictures(images, 20, 12, colour=False)

    assert main([*options, "--data-dir", str(images), "--out", str(tmp_path / "run")]) == 1
    assert words.format(images=images) in capsys.readouterr().err
    assert {path.name for path in images.iterdir()} == {"clouds", "discs", "stripes"}
