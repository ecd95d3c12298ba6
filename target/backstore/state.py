"""What a unit must not forget when its process ends: a small file beside its storage."""

import json
import os
from pathlib import Path
from threading import Lock
from typing import Any

from serverfree.target.backstore.base import StoreError

_SUFFIX, _SNAPSHOTS = ".state", ".snapshots"
_VERSION = 1


class StateFile:
    """Named sections of JSON values, each written whole or not at all. Safe from several threads.

    What `put` has returned from survives kill -9 and loss of power.
    """

    def __init__(self, path: Path) -> None:
        """Read the file if there is one. Raises StoreError if it is not one of ours."""
        self.path = path
        self._lock = Lock()
        self._sections: dict[str, Any] = {}
        try:
            content = json.loads(path.read_text())
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{path} cannot be read: {error}; move it away to begin anew"
            ) from None
        if not isinstance(content, dict) or content.get("version") != _VERSION:
            raise StoreError(
                f"{path} is not a state file of version {_VERSION}: move it away to begin anew"
            )
        self._sections = content.get("sections", {})

    def get(self, section: str) -> Any:
        """Return the value of a section, None if there is none."""
        return self._sections.get(section)

    def put(self, section: str, value: Any) -> None:
        """Set a section, or remove it with None. Raises OSError; then the old one still holds."""
        with self._lock:
            sections = {**self._sections, section: value}
            if value is None:
                del sections[section]
            if sections == self._sections:
                return
            self._write(sections)
            self._sections = sections

    def _write(self, sections: dict[str, Any]) -> None:
        text = json.dumps({"version": _VERSION, "sections": sections}, indent=1, sort_keys=True)
        draft = self.path.with_name(self.path.name + ".new")
        # 1. The new content is on stable storage under another name ...
        with draft.open("w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        # 2. ... before it takes the place of the old one, all at once ...
        draft.replace(self.path)
        # 3. ... and the folder knows it.
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def state_path(storage: Path) -> Path:
    """Return where the state of a unit over this file, folder or device lies.

    A device has no folder of its own to write to: its state lies under XDG_STATE_HOME.
    """
    return beside(storage, _SUFFIX)


def snapshot_folder(storage: Path, folder: Path | None = None) -> Path:
    """Return where the snapshots of a unit lie: beside its storage, or below the `folder` given."""
    usual = beside(storage, _SNAPSHOTS)
    return usual if folder is None else folder / usual.name


def beside(storage: Path, suffix: str) -> Path:
    """Return where something lies that belongs to a storage and must outlive loss of power.

    What lies beside a device does not. There its name is the one that the device was called by: of
    those under /dev/disk/by-id another disk never gets it.
    """
    if not storage.is_block_device():
        return storage.with_name(storage.name + suffix)
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    folder = Path(home) / "serverfree"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / (str(storage.absolute()).strip("/").replace("/", "-") + suffix)
