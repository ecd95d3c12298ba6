"""The memory of a cartridge (MAM, SPC-4 7.4): what hosts wrote into it, and its life in numbers.

    memory.json    replaced whole, by rename; a CRC32C over the rest of it

It holds no data of the tape: where it is lost or damaged, a new one begins, and `serverfree
cartridge check` says so.
"""

import contextlib
import json
import logging
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from serverfree.target.backstore.cartridge_log import crc32c
from serverfree.target.backstore.cartridge_state import sync_directory

_logger = logging.getLogger("serverfree.cartridge")

NAME = "memory.json"
_DRIVES = 4  # of how many loads the drive is remembered


@dataclass(frozen=True, slots=True)
class Attribute:
    """A value as a host wrote it; `format` 0 is binary, 1 ASCII, 2 text (SPC-4 7.4.1)."""

    format: int
    value: bytes


@dataclass(slots=True)
class Life:
    """Numbers that only grow: bytes as hosts sent or got them, objects, errors, loads."""

    loads: int = 0
    bytes_written: int = 0
    bytes_read: int = 0
    stored_written: int = 0
    stored_read: int = 0
    blocks_written: int = 0
    blocks_read: int = 0
    marks_written: int = 0
    write_errors: int = 0
    read_errors: int = 0
    formats: int = 1  # making the cartridge was one

    def since(self, before: "Life") -> "Life":
        """What has come since it was `before`."""
        return Life(
            *(getattr(self, each.name) - getattr(before, each.name) for each in fields(Life))
        )


@dataclass(slots=True)
class CartridgeMemory:
    """The memory of an open cartridge. `before_load` is `life` as it was when it was last loaded,
    `last_load` what came in the last load that has ended.

    `attributes` has those of hosts, by partition and identifier. `drives` names the drives of the
    last loads, the present one first.
    """

    directory: Path
    attributes: dict[tuple[int, int], Attribute] = field(default_factory=dict)
    life: Life = field(default_factory=Life)
    before_load: Life = field(default_factory=Life)
    last_load: Life = field(default_factory=Life)
    drives: list[str] = field(default_factory=list)
    damage: str = ""

    @classmethod
    def open(cls, directory: Path) -> "CartridgeMemory":
        """Read the memory. Never raises: what cannot be read is reported in `damage`."""
        memory = cls(directory)
        path = directory / NAME
        try:
            outer = json.loads(path.read_bytes())
            if crc32c(outer["memory"].encode()) != outer["crc32c"]:
                raise ValueError("its CRC does not match")
            memory._take(json.loads(outer["memory"]))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            memory = cls(directory, damage=f"{path}: {error}")
            _logger.warning("%s: begun anew: %s", path, error)
        return memory

    def _take(self, content: dict[str, Any]) -> None:
        for partition, identifier, form, value in content["attributes"]:
            self.attributes[int(partition), int(identifier)] = Attribute(
                int(form), bytes.fromhex(value)
            )
        self.life = Life(**content["life"])
        self.last_load = Life(**content.get("last_load", {}))  # of old: other names
        self.drives = [str(drive) for drive in content["drives"]]

    def loaded(self, drive: str) -> None:
        """Count a load into a drive. Raises OSError."""
        self.life.loads += 1
        self.before_load = Life(**asdict(self.life))
        self.drives = [drive, *self.drives][:_DRIVES]
        self.save()

    def unloaded(self) -> None:
        """Keep what was done since the load. Raises OSError."""
        self.last_load = self.life.since(self.before_load)
        self.save()

    def save(self) -> None:
        """Put the memory on stable storage; a crash leaves the old or the new. Raises OSError."""
        content = json.dumps(
            {
                "attributes": [
                    [partition, identifier, attribute.format, attribute.value.hex()]
                    for (partition, identifier), attribute in sorted(self.attributes.items())
                ],
                "life": asdict(self.life),
                "last_load": asdict(self.last_load),
                "drives": self.drives,
            }
        )
        partial = self.directory / f"{NAME}.new"
        try:
            with partial.open("w") as file:
                json.dump({"crc32c": crc32c(content.encode()), "memory": content}, file)
                file.flush()
                os.fsync(file.fileno())  # 1. the whole of it
            partial.rename(self.directory / NAME)  # 2. in place of the old
            sync_directory(self.directory)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise
