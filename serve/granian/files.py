"""The explorer's page, as far as it is installed here, and the contract.

The page belongs to the package pinhole. It is found as files: a server doesn't import clients.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import serve
from serve.bundle.distribution import DISTRIBUTION
from serve.wire.replies import Reply

SERVE = Path(serve.__file__).parent
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".yaml": "application/yaml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def find_files() -> dict[str, Path]:
    """URL path → file, of everything that is installed."""
    files = {"/openapi.yaml": SERVE / "openapi.yaml"}
    page = page_folder()
    if page:
        files |= {f"/{path.name}": path for path in servable(page)}
        files["/"] = files["/index.html"]
    return files


def file_reply(path: Path) -> Reply:
    """A file as it is."""
    headers = {
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return Reply(path.read_bytes(), content_type=MEDIA_TYPES[path.suffix], headers=headers)


def hint(path: str) -> str:
    """What a caller is told of a path that isn't served."""
    if path == "/":
        return f"the explorer's page isn't installed: pip install {DISTRIBUTION}"
    return "no such path; /openapi.yaml lists them"


def servable(folder: Path) -> Iterator[Path]:
    """The files of a folder that browsers ask for."""
    return (path for path in folder.iterdir() if path.suffix in MEDIA_TYPES)


def page_folder() -> Path | None:
    """Where the explorer's page is installed; None if it isn't."""
    spec = find_spec("pinhole")
    folders = [] if spec is None else spec.submodule_search_locations or []
    found = (Path(folder) / "explorer" / "page" for folder in folders)
    return next(filter(Path.is_dir, found), None)
