"""The files that the explorer's page consists of."""

from pathlib import Path

PAGE = Path(__file__).parent / "page"

# Suffix → media type. Not taken from the operating system's table: where that table is wrong,
# browsers refuse to run the page's scripts.
MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


def page_files() -> dict[str, Path]:
    """URL path → file, for everything that the page consists of."""
    files = {f"/{path.name}": path for path in PAGE.iterdir() if path.suffix in MEDIA_TYPES}
    return {**files, "/": PAGE / "index.html"}
