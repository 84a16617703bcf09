"""Images in, checkpoint out: the training stage (``python -m train --help``).

__main__.py     the command, in the order of a run
config.py       the hyperparameters and the recipes
data.py         datasets by name: mnist.py, digits.py, folder.py; dataset.py says what one is
loop.py         the run, one epoch at a time; schedule.py, what changes from step to step
step.py         one step: augment.py, then model.py, then Adam and muon.py
layout.py       the map that embeddings are drawn to at first
start.py        a network that begins as PCA (pca.py)
run.py          the run's folder: metrics, settings, and the state to resume from
evaluate.py     how good the model is; verdict.py, the same in words; pictures.py, to look at
checkpoint.py   the result: weights, map, and card.py's card
device.py       where to train, and in which format; progress.py, the bars; errors.py
"""
