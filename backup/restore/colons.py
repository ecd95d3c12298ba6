"""Names with a colon, which the driver takes for streams while it gives access to those.

POSIX programs may make such names on NTFS, Windows cannot. They are restored under other names, and
get their own in a session of the driver that knows of no streams.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from serverfree.backup.ntfs.volume import Volume
from serverfree.backup.restore.wanted import RestoreError, WantedFile
from serverfree.backup.restore.workshop import Workshop

_STAND_IN = ".serverfree-{:08x}.colon"
_NO_STREAMS = "streams_interface=none"


@dataclass(slots=True)
class StandIns:
    """Names that stand in for others, by the path that they stand for."""

    _names: dict[str, str] = field(default_factory=dict)
    _meant: dict[str, str] = field(default_factory=dict)
    """The last name of what a stand-in stands for."""

    def take(self, files: Iterable[WantedFile]) -> list[WantedFile]:
        """Return the files under paths without a colon."""
        return [replace(each, paths=tuple(map(self.path, each.paths))) for each in files]

    def path(self, path: str) -> str:
        """Return a path without a colon for this one; the same one each time."""
        if ":" not in path:
            return path
        parts = path.split("/")
        for index, part in enumerate(parts):
            if ":" in part:
                whole = "/".join(path.split("/")[: index + 1])
                name = self._names.setdefault(whole, _STAND_IN.format(len(self._names)))
                self._meant[name] = part
                parts[index] = name
        return "/".join(parts)

    def require_free(self, volume: Volume) -> None:
        """Raise RestoreError if a volume has such a name already."""
        if not self._names:
            return
        taken = {path for file in volume.files() for path in file.paths}
        if there := self._names.keys() & taken:
            raise RestoreError(
                f"already on the volume: {', '.join(map(repr, sorted(there)[:3]))}; a name with a "
                "colon is not replaced, --into PATH restores beside it"
            )

    def give_names(self, workshop: Workshop, *options: str) -> None:
        """Give everything its own name."""
        if not self._names:
            return
        with workshop.mounted(_NO_STREAMS, *options) as mounted:
            # The deepest first: what they lie in still has the name that it was made under.
            for whole in sorted(self._names, key=lambda each: -each.count("/")):
                folder, _, name = whole.rpartition("/")
                inside = self.path(folder) + "/" if folder else ""
                place = mounted.at(inside + self._names[whole])
                if os.path.lexists(place):  # it may have been given up
                    place.rename(mounted.at(inside + name))

    def own(self, path: str) -> str:
        """Return the path that this one stands for."""
        return "/".join(self._meant.get(part, part) for part in path.split("/"))

    def told(self, texts: Sequence[str]) -> list[str]:
        """Return messages with the names that are meant."""
        found = list(texts)
        for name, meant in self._meant.items():
            found = [each.replace(name, meant) for each in found]
        return found
