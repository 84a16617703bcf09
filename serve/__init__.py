"""What runs in production: a bundle in, HTTP endpoints out (``python -m serve --help``)."""
