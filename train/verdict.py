"""What a finished training came to, in words: how it compares, and what to try."""

from torch import Tensor

from train.config import FEWEST_VALIDATING, MOST_EPOCHS, PCA_CHANNELS
from train.evaluate import Evaluation
from train.loop import Trainer
from train.pca import Pca

ALIKE = 0.95  # share of the mean image's error from which on all pictures are drawn nearly alike
FEW_STEPS = 200
TINY = 1e-6  # an mse that is nothing: float32 adds up pixels no more closely
SHARES = (0.8, 0.9, 0.95)  # of the variance, for which a width of the embedding is suggested
SURE = 2  # standard errors from which on a difference is more than chance
FINE = 0.1  # a share below this is told to a tenth of a percent
OVERFITTED = 0.8  # a training error below this share of the test error was learned by heart


def verdict(trainer: Trainer, found: Evaluation, pca: Pca, images: Tensor) -> list[str]:
    """Lines for the end of a run.

    Args:
        trainer: after its last epoch.
        found: with all metrics.
        pca: of the training images.
        images: the test images, uint8[N, C, H, W].
    """
    metrics = found.metrics
    if metrics["mean_image_mse"] < TINY:
        return ["all pictures are the same: there is nothing to learn"]
    width = trainer.config.output_dim
    numbers = f"{width} number{'s' if width > 1 else ''}"
    beside_pca = compare(metrics["mse"], metrics["pca_mse"])
    beside_mean = compare(metrics["mse"], metrics["mean_image_mse"])
    lines = [f"the weights are those of epoch {trainer.best_epoch}"] if trainer.ended_early else []
    lines.append(
        f"the model's mse is {beside_pca} that of PCA with {numbers}, and {beside_mean} that of "
        "the mean image"
    )
    above = found.errors - pca.errors(images, width)[1].numpy()
    deviation = float(above.std(ddof=1) / len(above) ** 0.5)
    if metrics["pca_mse"] > TINY and abs(above.mean()) < SURE * deviation:
        lines.append(
            f"{len(above):,} test images are too few to tell the model from PCA: the standard "
            f"error of the difference is {percent(deviation / metrics['pca_mse'])}"
        )
    if metrics["mse"] > ALIKE * metrics["mean_image_mse"]:
        lines.append("it draws every picture nearly alike")
    if metrics["mse"] >= metrics["pca_mse"]:
        lines.append("to try: " + advise(trainer, metrics["mse"]))
    return [*lines, suggest_width(pca.kept(images), width)]


def compare(mse: float, other: float) -> str:
    """E.g. ``30 % below``."""
    if other < TINY:
        return "above" if mse >= TINY else "equal to"
    return f"{percent(abs(mse / other - 1))} {'above' if mse > other else 'below'}"


def percent(share: float) -> str:
    """A share in percent, to a tenth where it is small."""
    return f"{100 * share:.{1 if share < FINE else 0}f} %"


def advise(trainer: Trainer, mse: float) -> str:
    """What may bring a model of this test error below PCA, by what its run looked like."""
    config, best = trainer.config, trainer.history[trainer.best_epoch - 1]
    learned = trainer.images_per_epoch // config.passes
    enough = PCA_CHANNELS * config.input_dim
    if config.start == "mean" and config.hidden_dim < enough:
        return f"a wider network: --hidden-dim {enough} or more lets training start from PCA"
    if trainer.steps < FEW_STEPS and len(trainer.history) == config.epochs < MOST_EPOCHS:
        return f"a longer run: {trainer.steps} steps are few; leave out --epochs, or ask for more"
    if config.fit_on == "all" and learned // 5 < FEWEST_VALIDATING:
        return (
            f"more pictures: of {5 * FEWEST_VALIDATING} training images or more, a fifth is held "
            "back to end the run in time"
        )
    if best.train_mse < OVERFITTED * mse:
        return f"more pictures, or stronger changes to them (--augment {config.augment + 1:g})"
    if best.val_mse is not None and trainer.best_epoch > 0.9 * config.epochs:
        return f"a longer run: the error was still falling (--epochs {2 * config.epochs})"
    return f"another --seed, or a lower rate (--learning-rate {config.learning_rate / 4:g})"


def suggest_width(kept: Tensor, width: int) -> str:
    """What PCA's spectrum says about the width of the embedding."""
    most = len(kept)
    needs = []
    for share in SHARES:
        enough = int((kept < share).sum()) + 1
        needed = str(enough) if enough <= most else f"more than {most}"
        needs.append(f"{100 * share:.0f} % takes {needed}")
    here = f"PCA with {width} keeps {100 * kept[min(width, most) - 1]:.0f} %"
    return f"{here} of the variance; {', '.join(needs)} (--output-dim; 2 draw a map)"
