"""What can go wrong in training that the person at the keyboard can fix.

TrainError
├── ConfigError        a hyperparameter is out of range
├── DatasetError       the data is missing, damaged or of the wrong kind
├── CheckpointError    a checkpoint or run is missing, damaged or of another schema
└── Diverged           the loss became NaN or infinite
"""

INTERRUPTED = 130  # the shell's exit code for Ctrl-C


class TrainError(Exception):
    """Root of the tree; ``python -m train`` prints it as one line and exits 1."""


class ConfigError(TrainError):
    """A hyperparameter is out of range; the message shows its value and the limit."""


class DatasetError(TrainError):
    """The dataset can't be read; the message names the folder or file."""


class CheckpointError(TrainError):
    """A checkpoint can't be read or replaced, or a run can't be resumed; the message says which."""


class Diverged(TrainError):
    """The training loss became NaN or infinite."""
