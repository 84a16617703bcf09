"""Every code block of the README and of docs/api.md works as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Running

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/api.md")
ADDRESS = "http://127.0.0.1:8080"
PROGRAMS = {"bash": ["bash", "-ec"], "python": [sys.executable, "-c"]}

# Words in a block → what that block has to print.
OUTPUTS = {
    "@$SEVEN $URL/predictions/embed": '{"embedding',
    "/predictions/reconstruct\n": '"anomaly":{"percentile":',
    "filename=b.png": '"type":"InvalidImage"',
    "-d garbage": "}400\n",
    "np.save(body": "(3, 1, 28, 28) 3\n",
    "tritonclient": "(5, 2)\n",
    "embed_each": "refused: 6 bytes",
    "from openai": "[[-0.9",
}
PICTURE = re.compile(r"-o (\w+\.png)")
SUMMARY = re.compile(r"\(-?\d+\.\d\d, -?\d+\.\d\d\), mse 0\.\d{4}, outlier: \w+\n")


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of every block of a page."""
    content = (ROOT / page).read_text()
    return re.findall(r"^```(\w*)\n(.*?)^```$", content, re.DOTALL | re.MULTILINE)


RUNNING = [
    pytest.param(language, text, id=f"{page}-{number}-{language}")
    for page in PAGES
    for number, (language, text) in enumerate(blocks(page))
    if language in PROGRAMS
]


@pytest.mark.parametrize(("language", "text"), RUNNING)
def test_block_runs(service: Running, tmp_path: Path, language: str, text: str) -> None:
    """Each code block runs, with nothing changed but the address."""
    (tmp_path / "clients").symlink_to(ROOT / "clients")
    assert ADDRESS in text
    if "from openai" in text and service.server == "torchserve":
        pytest.skip("TorchServe has this path behind a gateway: see tests/docker/test_gateway.py")

    done = subprocess.run(
        [*PROGRAMS[language], text.replace(ADDRESS, service.url)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    for words, output in OUTPUTS.items():
        assert words not in text or output in done.stdout
    if "outlier: {" in text:
        assert SUMMARY.fullmatch(done.stdout)
    for name in PICTURE.findall(text):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("page", PAGES)
def test_blocks_run_or_are_text(page: str) -> None:
    """Each page has blocks in both languages, and in no other, which would never run."""
    languages = {language for language, _ in blocks(page)}

    assert set(PROGRAMS) <= languages <= {*PROGRAMS, "text"}


def test_expected_outputs_are_of_blocks_there_are() -> None:
    """Every expected output belongs to a block that is there."""
    texts = [text for page in PAGES for _, text in blocks(page)]

    assert [words for words in OUTPUTS if not any(words in text for text in texts)] == []
