"""The explorer's page, the contract and its documentation, as far as they are installed here.

The page belongs to the package pinhole. It is found as files: a server doesn't import clients.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import serve
from serve.bundle.distribution import DISTRIBUTION
from serve.wire.replies import Reply

SERVE = Path(serve.__file__).parent
SWAGGER = "drf_spectacular_sidecar/static/drf_spectacular_sidecar/swagger-ui-dist"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".yaml": "application/yaml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'{}; img-src 'self'{}; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_POLICY, DOCS_POLICY = POLICY.format("", ""), POLICY.format(" 'unsafe-inline'", " data:")


@dataclass(frozen=True)
class StaticFile:
    """A file that is served as it is.

    Attributes:
        path: where it lies.
        policy: its Content-Security-Policy.
    """

    path: Path
    policy: str

    def reply(self) -> Reply:
        """The file as a response."""
        headers = {
            "Content-Security-Policy": self.policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        }
        media_type = MEDIA_TYPES[self.path.suffix]
        return Reply(self.path.read_bytes(), content_type=media_type, headers=headers)


def find_files() -> dict[str, StaticFile]:
    """URL path → file, of everything that is installed."""
    files = {"/openapi.yaml": StaticFile(SERVE / "openapi.yaml", PAGE_POLICY)}
    page = page_folder()
    if page:
        files |= {f"/{path.name}": StaticFile(path, PAGE_POLICY) for path in servable(page)}
        files["/"] = files["/index.html"]
    script = carried("drf-spectacular-sidecar", f"{SWAGGER}/swagger-ui-bundle.js")
    if script:
        both = [*servable(SERVE / "gateway" / "docs"), script, script.with_name("swagger-ui.css")]
        files |= {f"/docs/{path.name}": StaticFile(path, DOCS_POLICY) for path in both}
        files["/docs/"] = files["/docs/index.html"]
    return files


def hint(path: str) -> str:
    """What a caller is told of a path that isn't served."""
    if path == "/":
        return f"the explorer's page isn't installed: pip install {DISTRIBUTION}"
    if path == "/docs/":
        return "the page isn't installed: pip install --no-deps drf-spectacular-sidecar"
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


def carried(package: str, path: str) -> Path | None:
    """A file that another package carries; None if that package isn't installed."""
    try:
        return Path(str(distribution(package).locate_file(path)))
    except PackageNotFoundError:
        return None
