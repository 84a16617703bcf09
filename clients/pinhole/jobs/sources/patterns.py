"""Patterns of names: ``*``, ``?``, ``[ab]``, ``**`` and, as in bash, ``{a,b}``, ``{000..099}``."""

import glob
import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatch

from pinhole.jobs.errors import JobError

BRACES = re.compile(r"\{([^{}]*)\}")
NUMBERS = re.compile(r"(\d+)\.\.(\d+)")
MOST_NAMES = 1_000_000  # That braces may stand for.

Places = frozenset[int]


class Pattern:
    """The names of a path, matched one by one, so that a walk enters only folders that may lead on.

    Args:
        names: of the path; ``**`` stands for any number of folders. As in a shell, a name that
            begins with a dot is matched only by a name that begins with one.

    Attributes:
        start: the places in the pattern that a path without names has come to.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self.start = self._passing_by({0})
        self.depth = None if "**" in names else len(names)

    def step(self, places: Places, name: str, linked: bool = False) -> Places:
        """The places that a path has come to with one name more.

        Args:
            places: that it had come to before.
            name: of a file or folder.
            linked: it is a linked folder, which ``**`` doesn't enter: links may lead in circles.
        """
        reached = set[int]()
        for place in places - {len(self._names)}:
            wanted = self._names[place]
            if name.startswith(".") and not wanted.startswith("."):
                continue
            if wanted != "**":
                reached |= {place + 1} if wanted == "*" or fnmatch(name, wanted) else set()
            elif not linked:
                reached.add(place)
        return self._passing_by(reached)

    def matches(self, places: Places) -> bool:
        """Whether a path that has come to these places matches."""
        return len(self._names) in places

    def leads_on(self, places: Places) -> bool:
        """Whether a path that has come to these places may match with more names."""
        return bool(places - {len(self._names)})

    def fits(self, path: str) -> bool:
        """Whether a whole path matches."""
        places = self.start
        for name in path.split("/"):
            places = self.step(places, name)
        return self.matches(places)

    def _passing_by(self, places: Iterable[int]) -> Places:
        """These places, and those behind each ``**``, which may stand for no folder at all."""
        passed = set(places)
        for place, name in enumerate(self._names):
            if name == "**" and place in passed:
                passed.add(place + 1)
        return frozenset(passed)


EVERYTHING = Pattern(("**", "*"))


def split_pattern(pattern: str, exists: Callable[[str], bool]) -> tuple[str, Pattern | None]:
    """What is in a pattern literally, ending in a slash unless empty, and what has to be matched.

    Args:
        pattern: names with slashes between them.
        exists: whether there is a file or folder of this very name; if so, its ``[`` is a ``[``.

    Returns:
        The pattern itself and None if it names a file or folder literally.
    """
    names = pattern.split("/")
    for at, name in enumerate(names):
        if glob.has_magic(name) and not exists("/".join(names[: at + 1])):
            return "".join(f"{each}/" for each in names[:at]), Pattern(names[at:])
    return pattern, None


def expand_braces(pattern: str) -> list[str]:
    """The patterns that a pattern with braces stands for, as bash expands it, each of them once.

    Raises:
        JobError: they are too many.
    """
    for found in BRACES.finditer(pattern):
        before, after = pattern[: found.start()], pattern[found.end() :]
        every = dict[str, None]()
        for choice in choices(found[1]):
            every.update(dict.fromkeys(expand_braces(before + choice + after)))
            if len(every) > MOST_NAMES:
                raise too_many(pattern)
        if every:
            return list(every)
    return [pattern]


def choices(text: str) -> Sequence[str]:
    """What stands between two braces, ``a,b`` or ``000..099``, as words; none if it is a text."""
    if numbers := NUMBERS.fullmatch(text):
        first, last = int(numbers[1]), int(numbers[2])
        if abs(last - first) >= MOST_NAMES:
            raise too_many(f"{{{text}}}")
        digits = max(map(len, numbers.groups())) if re.search(r"\b0\d", text) else 0
        order = range(first, last + 1) if first <= last else range(first, last - 1, -1)
        return [f"{number:0{digits}}" for number in order]
    return text.split(",") if "," in text else ()


def too_many(text: str) -> JobError:
    """The error of braces that stand for too many names."""
    return JobError(f"{text} stands for more than {MOST_NAMES:,} names")
