"""Checkpoint in, bundle out: the export stage (``python -m export --help``)."""
