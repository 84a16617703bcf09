"""Which room may import which: data flows one way through them, and so do imports."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("train", "export", "serve", "pinhole")

# room → the modules of other rooms it may import, anything below them included
ALLOWED = {
    "train": (),
    "export": ("train", "serve.bundle", "serve.engine", "serve.errors"),
    "serve": (),
    "clients/pinhole": ("serve.bundle", "serve.engine", "serve.errors", "serve.images"),
    "clients/examples": ("pinhole",),
}


def imports_of(path: Path) -> Iterator[str]:
    """Every module a file imports, lazily or not, by its full name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("room", ALLOWED)
def test_rooms_import_along_the_arrows_only(room: str) -> None:
    """A room imports itself and what the arrows allow; nothing else of this project."""
    files = list((ROOT / room).rglob("*.py"))
    own = room.removeprefix("clients/")
    allowed = (own, *ALLOWED[room])
    offences = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imports_of(path)
        if name.split(".")[0] in OURS
        and not any(name == place or name.startswith(place + ".") for place in allowed)
    ]
    assert files
    assert offences == []
