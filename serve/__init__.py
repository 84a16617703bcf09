"""Serve a bundle over HTTP (``python -m serve --help``)."""
