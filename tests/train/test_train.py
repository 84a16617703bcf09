"""Training: from images to a checkpoint on disk, and back from disk."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from train.__main__ import main
from train.augment import augment
from train.checkpoint import FILES, draft_of, load_checkpoint
from train.config import TrainConfig
from train.dataset import Dataset
from train.errors import CheckpointError, ConfigError, Diverged
from train.evaluate import evaluate
from train.evaluate import main as evaluate_main
from train.loop import Epoch, Trainer
from train.pca import fit_pca
from train.run import RunFolder
from train.schedule import warped_share


def fit(trainer: Trainer, epochs: int | None = None) -> list[Epoch]:
    """Train until ``epochs`` epochs are finished; by default to the end of the run."""
    while len(trainer.history) < (epochs or trainer.config.epochs):
        trainer.run_epoch(lambda count: None)
    return trainer.history


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of three quick epochs on real digits."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    options = ["--dataset", "digits", "--epochs", "3", "--hidden-dim", "8"]
    assert main([*options, "--batch-size", "32", "--out", str(out)]) == 0
    return out / "checkpoint"


def test_training_learns(trained: Path) -> None:
    """The loss falls, and the card says how far."""
    card = json.loads((trained / "card.json").read_text())

    losses = [epoch["val_mse"] for epoch in card["history"]]
    assert len(losses) == 3
    assert losses[2] < losses[0]
    assert card["metrics"]["mse"] < 0.06  # answering with the mean pixel gives 0.096


def test_card_tells_the_truth(trained: Path, digits: Dataset) -> None:
    """Evaluating the weights again gives the card's metrics and map."""
    checkpoint = load_checkpoint(trained)

    again = evaluate(checkpoint.model, digits)

    assert again.metrics == pytest.approx(checkpoint.card["metrics"], rel=1e-4)
    assert again.embeddings == pytest.approx(checkpoint.embeddings, abs=1e-4)
    assert checkpoint.card["dataset"]["sha256"] == digits.checksum
    assert len(checkpoint.card["calibration"]["mse_quantiles"]) == 101
    assert again.metrics["mean_image_mse"] > again.metrics["pca_mse"]


def test_damaged_checkpoint_is_named(trained: Path, tmp_path: Path) -> None:
    """A missing, truncated or newer file is an error that says which checkpoint or file."""
    with pytest.raises(CheckpointError, match=r"card\.json is missing"):
        load_checkpoint(tmp_path)

    card = json.loads((trained / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps({**card, "schema": 99}))
    with pytest.raises(CheckpointError, match="schema 99"):
        load_checkpoint(tmp_path)

    (tmp_path / "card.json").write_text(json.dumps(card))
    (tmp_path / "weights.safetensors").write_bytes(
        (trained / "weights.safetensors").read_bytes()[:-1]
    )
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path)

    layer = {**card["network"], "encoder.convolutions.1": "GELU(approximate='none')"}
    (tmp_path / "card.json").write_text(json.dumps({**card, "network": layer}))
    with pytest.raises(CheckpointError, match=r"another network: encoder\.convolutions\.1 is GELU"):
        load_checkpoint(tmp_path)

    (tmp_path / "card.json").write_text(json.dumps(card))
    shutil.copy(trained / "weights.safetensors", tmp_path)
    for points in (b"", (trained / "map.npz").read_bytes()[:99]):
        (tmp_path / "map.npz").write_bytes(points)
        with pytest.raises(CheckpointError, match="damaged"):
            load_checkpoint(tmp_path)


def test_failed_save_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    """A failed save leaves the previous checkpoint in place, and no draft beside it."""
    folder = tmp_path / "run"
    with draft_of(folder, {"map.npz"}) as draft:
        (draft / "map.npz").write_text("first")

    def fail_halfway() -> None:
        with draft_of(folder, {"map.npz"}) as draft:
            (draft / "map.npz").write_text("second")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk"):
        fail_halfway()

    assert (folder / "map.npz").read_text() == "first"
    assert list(tmp_path.iterdir()) == [folder]


def test_failed_swap_gives_the_name_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save interrupted between its two renames leaves the previous checkpoint in place."""
    folder = tmp_path / "run"
    with draft_of(folder, {"map.npz"}) as draft:
        (draft / "map.npz").write_text("first")
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if target == folder and not self.name.endswith(".former"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), draft_of(folder, {"map.npz"}) as draft:
        (draft / "map.npz").write_text("second")

    assert (folder / "map.npz").read_text() == "first"
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("beside", [[], ["card.json"], ["card.json", "map.npz"]])
def test_other_folders_are_never_replaced(tmp_path: Path, beside: list[str]) -> None:
    """An --out that holds other files is refused before training, and the files stay."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name in (*beside, "thesis.txt"):
        (folder / name).write_text("years of work")

    with (
        pytest.raises(CheckpointError, match=r"holds other things \(thesis.txt\)"),
        draft_of(folder, {"card.json", "map.npz"}),
    ):
        pass
    assert main(["--dataset", "digits", "--epochs", "99999", "--out", str(tmp_path)]) == 1

    assert (folder / "thesis.txt").read_text() == "years of work"


def test_a_file_of_a_common_name_makes_no_checkpoint(tmp_path: Path) -> None:
    """A folder that holds one of a checkpoint's names, and no checkpoint, isn't replaced."""
    (tmp_path / "card.json").write_text("a business card")

    with pytest.raises(CheckpointError, match=r"\(card.json\)"), draft_of(tmp_path, FILES):
        pass


def test_diverging_run_stops(digits: Dataset) -> None:
    """A loss that is NaN or infinite ends the run, and the message says what to change."""
    config = TrainConfig(dataset="digits", hidden_dim=4, learning_rate=1e30, epochs=2)

    trainer = Trainer(config, digits)

    with pytest.raises(Diverged, match="learning_rate"):
        fit(trainer)
    assert len(trainer.history) < 2


def test_warps_get_rarer_towards_the_end(digits: Dataset) -> None:
    """The share of warped images falls over the last part of the run, and augment keeps to it."""
    config = TrainConfig(augment=1.0, augment_fade=0.5)
    assert [round(warped_share(config, step, 100), 3) for step in (0, 50, 75, 99)] == [
        0.8,
        0.8,
        0.4,
        0.016,
    ]
    assert warped_share(replace(config, augment_fade=0.0), 99, 100) == 0.8

    images = digits.train_images[:400]
    for share in (0.0, 0.25, 1.0):
        made = augment(images, 1.0, share, torch.Generator().manual_seed(0))
        changed = (made != images).flatten(1).any(1).float().mean().item()
        assert changed == pytest.approx(share, abs=0.08)  # 0.02 is its deviation


def test_images_must_fit_the_model(digits: Dataset) -> None:
    """Images of another size than the model's are refused before the first step."""
    config = TrainConfig(dataset="digits", image_size=32)

    with pytest.raises(ConfigError, match=r"\(1, 28, 28\).*image_size"):
        Trainer(config, digits)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_is_never_replaced_silently(digits: Dataset) -> None:
    """--device cuda without CUDA is an error."""
    with pytest.raises(ConfigError, match="no CUDA device"):
        Trainer(TrainConfig(device="cuda"), digits)


SMALL = TrainConfig(
    device="cpu",
    dataset="digits",
    hidden_dim=4,
    epochs=4,
    batch_size=128,
    augment=1.0,
    augment_fade=0.5,
    schedule="cosine",
)


@pytest.mark.parametrize("model", ["ae", "vae"])
def test_resumed_run_has_the_numbers_of_an_uninterrupted_one(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    """Stop after two of four epochs, start again from disk: the same losses and weights."""
    config = replace(SMALL, model=model, layout=0.1)
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
    assert list(tmp_path.glob("events.out.tfevents.*"))


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


def test_runs_of_earlier_versions_can_be_resumed(digits: Dataset) -> None:
    """A hyperparameter that the run didn't know was at its default."""
    state = Trainer(SMALL, digits).state()
    del state["config"]["passes"], state["config"]["warps"], state["best"]

    Trainer(SMALL, digits).restore(state)
    with pytest.raises(ConfigError, match="passes 1, not 2"):
        Trainer(replace(SMALL, passes=2), digits).restore(state)


def test_checkpoint_is_there_before_it_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever happens while the model is judged, its checkpoint can be loaded; resume judges."""
    options = ["--dataset", "digits", "--hidden-dim", "4", "--epochs", "1", "--out", str(tmp_path)]

    def fails(*_: object) -> None:
        raise OSError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr("train.__main__.fit_pca", fails)
        assert main(options) == 1
    assert set(load_checkpoint(tmp_path / "checkpoint").card["metrics"]) == {"mse"}

    assert main(["--resume", "--out", str(tmp_path)]) == 0
    assert "pca_mse" in load_checkpoint(tmp_path / "checkpoint").card["metrics"]


def test_patience_ends_the_run_and_keeps_the_best(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two epochs after the best the run ends, with the best weights, over a restart too."""
    errors = iter([0.5, 0.3, 0.4, 0.35])
    monkeypatch.setattr(Trainer, "_val_mse", lambda self: next(errors))
    config = replace(SMALL, epochs=99, patience=2)
    trainer = Trainer(config, digits)
    while not trainer.finished:
        trainer.run_epoch(lambda count: None)
        if len(trainer.history) == 2:
            best = {name: part.clone() for name, part in trainer.model.state_dict().items()}
        if len(trainer.history) == 3:
            state, trainer = trainer.state(), Trainer(config, digits)
            trainer.restore(state)

    assert (len(trainer.history), trainer.best_epoch) == (4, 2)
    trainer.take_best()
    for name, weights in trainer.model.state_dict().items():
        assert torch.equal(weights, best[name])


def test_a_small_set_is_passed_repeatedly(digits: Dataset) -> None:
    """With three passes an epoch learns every image three times."""
    small = replace(digits, train_images=digits.train_images[:50])
    counts: list[int] = []

    trainer = Trainer(replace(SMALL, passes=3, batch_size=16), small)
    trainer.run_epoch(counts.append)

    assert sum(counts) == trainer.images_per_epoch == 3 * 40
    assert trainer.steps == len(counts)


def test_a_model_that_draws_all_alike_is_stuck(digits: Dataset) -> None:
    """After 200 steps, an error like the mean image's is a fault where PCA does better."""
    random = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, digits.train_images.shape, generator=random, dtype=torch.uint8)
    config = replace(SMALL, passes=100)  # 900 steps an epoch
    pictures, no_pictures = (
        Trainer(config, digits),
        Trainer(config, replace(digits, train_images=noise)),
    )
    mean_image_mse = fit_pca(digits.train_images, 2).errors(digits.train_images, 2)[0]

    for trainer, mse, stuck in (
        (pictures, mean_image_mse, True),
        (pictures, mean_image_mse / 2, False),
        (no_pictures, 1 / 12, False),  # the variance of noise
    ):
        trainer.history = [Epoch(1, mse, mse)]
        assert trainer.is_stuck() == stuck
    early = Trainer(replace(config, passes=1), digits)
    early.history = [Epoch(1, 1.0, 1.0)]
    assert not early.is_stuck()


def test_stuck_training_begins_again_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is given up as soon as it is found out, and the second try is taken to its end."""
    monkeypatch.setattr(Trainer, "is_stuck", lambda self: bool(self.history))
    options = ["--dataset", "digits", "--hidden-dim", "4", "--epochs", "2", "--out", str(tmp_path)]

    assert main([*options, "--learning-rate", "4e-3"]) == 0

    assert "beginning again with learning_rate 0.001 and seed 1" in capsys.readouterr().err
    card = load_checkpoint(tmp_path / "checkpoint").card
    assert (card["config"]["learning_rate"], card["config"]["seed"]) == (1e-3, 1)
    assert len(card["history"]) == 2
    assert json.loads((tmp_path / "settings.json").read_text())["seed"] == 1


def test_the_end_says_what_the_model_is_worth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model of a few steps is told apart from PCA and from the mean image, and what to try."""
    options = ["--dataset", "digits", "--hidden-dim", "4", "--epochs", "1", "--out", str(tmp_path)]

    assert main(options) == 0

    said = capsys.readouterr().out
    assert "% above that of PCA with 2 numbers, and " in said
    assert "to try: a longer run: 9 steps are few" in said
    assert "of the variance; 80 % takes " in said


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


def test_a_run_is_not_begun_over_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command again keeps what there is, and names the two ways on."""
    options = ["--dataset", "digits", "--hidden-dim", "4", "--epochs", "1", "--out", str(tmp_path)]
    assert main(options) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()

    monkeypatch.setattr(Trainer, "run_epoch", None)  # nothing is trained
    assert main(options) == 1

    told = capsys.readouterr().err
    assert "holds state.pt of an earlier run: --resume goes on" in told
    assert "another --out" in told
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_without_an_epoch_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C in the first epoch leaves nothing to resume, and nothing in the way."""
    options = ["--dataset", "digits", "--hidden-dim", "4", "--epochs", "1", "--out", str(tmp_path)]
    run_epoch = Trainer.run_epoch

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "run_epoch", interrupted)
    assert main(options) == 130
    assert "nothing to resume" in capsys.readouterr().err
    assert main([*options, "--resume"]) == 1

    monkeypatch.setattr(Trainer, "run_epoch", run_epoch)
    assert main(options) == 0


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


def test_resume_refuses_another_run(digits: Dataset, tmp_path: Path) -> None:
    """A missing or damaged state, and a run of another configuration, are refused by name."""
    with pytest.raises(CheckpointError, match="nothing to resume"):
        RunFolder(tmp_path).resume(Trainer(SMALL, digits))

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

    shorter = replace(digits, train_images=digits.train_images[1:])
    with pytest.raises(ConfigError, match="dataset"):
        Trainer(SMALL, shorter).restore(trainer.state())


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


def test_variational_model_embeds_its_mean(digits: Dataset) -> None:
    """Embeddings of a variational model have no noise, and the penalty pulls them to the prior."""
    spreads = {}
    for weight in (0.0, 100.0):
        trainer = Trainer(replace(SMALL, model="vae", kl_weight=weight), digits)
        fit(trainer)
        model, images = trainer.model.eval(), digits.test_images
        with torch.inference_mode():
            assert torch.equal(model.encode(images), model.encode(images))
            spreads[weight] = model.encode(images).square().mean().item()

    assert spreads[100.0] < spreads[0.0]


def test_evaluate_command_compares_with_the_card(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is 0 for a true card; for a forged card it is 1, and the metric is named."""
    assert evaluate_main([str(trained)]) == 0

    shutil.copytree(trained, tmp_path / "forged")
    card_file = tmp_path / "forged" / "card.json"
    card = json.loads(card_file.read_text())
    card["metrics"]["mse"] *= 0.9
    card_file.write_text(json.dumps(card))

    assert evaluate_main([str(tmp_path / "forged")]) == 1
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "differs" in line)
    assert line.startswith("mse ")

    assert evaluate_main([str(tmp_path / "nothing")]) == 1
    assert capsys.readouterr().err.startswith("evaluate: ")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("model", "precision"), [("ae", "bf16"), ("vae", "fp32")])
def test_captured_step_learns_like_the_plain_one(
    digits: Dataset, model: str, precision: str
) -> None:
    """A replayed graph gives the losses of the same kernels launched one by one, warps included."""
    config = replace(SMALL, device="cuda", batch_size=64, precision=precision, model=model)
    captured, plain = Trainer(config, digits), Trainer(config, digits)
    plain._learn_batch = plain._step

    for one, other in zip(fit(captured), fit(plain), strict=True):
        assert one.train_mse == pytest.approx(other.train_mse, rel=2e-2)
