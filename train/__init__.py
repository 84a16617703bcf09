"""Images in, checkpoint out: the training stage (``python -m train --help``)."""
