"""Pages that need nothing else: style, program and data within one HTML file."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pinhole.explorer.assets import PAGE

HERE = Path(__file__).parent

# The explorer's modules that draw the map, in the order of their imports, and what joins them.
MODULES = ("pace", "palette", "plane", "points", "dots", "legend", "axis", "zoom", "map")
MAP = (*(PAGE / f"{name}.js" for name in MODULES), HERE / "atlas.js")
STYLES = (PAGE / "style.css", HERE / "atlas.css")


def write_page(
    mark: bytes, title: str, body: str, data: Any = None, styles: Iterable[Path] = STYLES
) -> str:
    """Fill page.html; its content security policy allows the page's own script and style only.

    Args:
        mark: names the command; see mark_of.
        title: of the page, as text.
        body: HTML.
        data: what the map shows; None for a page without a map, and so without a program.
        styles: style sheets.
    """
    style = "".join(path.read_text("utf-8") for path in styles)
    script = "" if data is None else join_modules(MAP)
    filled = {
        "mark": mark.decode(),
        "title": html.escape(title),
        "style": style,
        # A script element ends at "</", and "<!--" changes how it is read; so no "<" is left.
        "data": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
        "program": script,
        "script_sum": sum_of(script),
        "style_sum": sum_of(style),
        "body": body,
    }
    text = (HERE / "page.html").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: filled[match[1]], text)


def mark_of(command: str) -> bytes:
    """What its pages have near their beginning, so that a command may replace its own pages."""
    return f'<meta name="generator" content="pinhole {command}">'.encode()


def map_element() -> str:
    """The map with its legend and notes, which the program fills; HTML."""
    return (HERE / "map.html").read_text("utf-8").strip()


def join_modules(modules: Iterable[Path]) -> str:
    """All modules as one script, without their imports and exports.

    Browsers load no modules from file://.
    """
    joined = "\n".join(path.read_text("utf-8") for path in modules)
    without = re.sub(r"^import [^;]+;\n", "", joined, flags=re.MULTILINE)
    return re.sub(r"^export ", "", without, flags=re.MULTILINE)


def sum_of(text: str) -> str:
    """The hash of an inline script or style, as a content security policy has it (CSP Level 3)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
