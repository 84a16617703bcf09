"""The files that the explorer's page consists of: the project's own, and D3."""

from importlib import metadata
from pathlib import Path

PAGE = Path(__file__).parent / "page"

# The Python package that carries D3 7, and D3's path in it.
D3_PACKAGE, D3_PATH = "tuna", "tuna/web/static/d3.min.js"

# Suffix → media type. Not taken from the operating system's table: where that table is wrong,
# browsers refuse to run the page's scripts.
MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


class MissingD3(Exception):
    """D3 isn't installed; the message says how to install it."""


def page_files() -> dict[str, Path]:
    """URL path → file, for everything that the page consists of.

    Raises:
        MissingD3: the package that carries D3 isn't installed.
    """
    files = {f"/{path.name}": path for path in PAGE.iterdir() if path.suffix in MEDIA_TYPES}
    return {**files, "/": PAGE / "index.html", "/d3.js": d3_file()}


def d3_file() -> Path:
    """D3's file in the package that carries it; the package itself is never imported.

    Raises:
        MissingD3: the package isn't installed.
    """
    try:
        return Path(str(metadata.distribution(D3_PACKAGE).locate_file(D3_PATH)))
    except metadata.PackageNotFoundError as error:
        from serve.bundle.distribution import install_command

        raise MissingD3(f"D3 is missing: {install_command('explore')}") from error
