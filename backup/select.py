"""Which files of a volume a backup takes: by path, by pattern, less what is excluded.

Names are compared without regard to case, as NTFS does.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from serverfree.backup.errors import BackupError
from serverfree.backup.files import File


class NothingMatches(BackupError):
    """A path was asked for that the volume does not have."""


class Selection:
    """A choice of files by their paths.

    A path stands for itself and all that is in it. `*` and `?` match within a name, `**` across
    folders. An exclusion without `/` is a name anywhere, otherwise a path from the root. Nothing
    asked for means everything.
    """

    def __init__(self, paths: Iterable[str] = (), excludes: Iterable[str] = ()) -> None:
        self._wanted = [(path, _pattern(_tidy(path))) for path in paths if _tidy(path)]
        self._excluded = [
            _pattern(_tidy(path) if "/" in path else f"**/{path}") for path in excludes
        ]
        self._met: set[str] = set()

    def takes(self, path: str) -> bool:
        """Whether a path is among the chosen."""
        folded = path.casefold()
        if any(pattern.match(folded) for pattern in self._excluded):
            return False
        if not self._wanted:
            return True
        hits = [name for name, pattern in self._wanted if pattern.match(folded)]
        self._met.update(hits)
        return bool(hits)

    def of(self, files: Iterable[File]) -> Iterator[File]:
        """Yield the chosen files, each with those of its paths that are chosen."""
        for file in files:
            paths = tuple(path for path in file.paths if self.takes(path))
            if paths:
                yield file if len(paths) == len(file.paths) else replace(file, paths=paths)

    def check_all_met(self) -> None:
        """After all files have been seen: raise NothingMatches if a path found none."""
        missing = [name for name, _ in self._wanted if name not in self._met]
        if missing:
            raise NothingMatches(f"nothing on the volume is {_list(missing)}")


def _tidy(path: str) -> str:
    return path.replace("\\", "/").strip("/").removeprefix("./")


def _list(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)


@lru_cache(maxsize=256)
def _pattern(path: str) -> re.Pattern[str]:
    """Return what matches a folded path, and everything in it where it is a folder."""
    text = ""
    for part in re.split(r"(\*\*/|\*\*|\*|\?)", path.casefold()):
        match part:
            case "**/":
                text += "(?:.*/)?"
            case "**":
                text += ".*"
            case "*":
                text += "[^/]*"
            case "?":
                text += "[^/]"
            case _:
                text += re.escape(part)
    return re.compile(rf"{text}(?:/.*)?\Z", re.DOTALL)
