"""What a file system says about its files, as far as a backup keeps it. Facts only, no I/O.

Offsets and lengths are bytes. A *place* is an offset on the volume, which may itself begin
somewhere on its disk (`VolumeFacts.start`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Extent:
    """`length` bytes of a stream, from its byte `start` on, that lie at `place` of the volume."""

    start: int
    length: int
    place: int


@dataclass(slots=True)
class Stream:
    """A stream of a file: its own data (no name) or an alternate data stream.

    `resident` is the whole content where it lies in the file's record. Otherwise `extents` are the
    clusters, whole, in the order of the stream; what lies between them is a hole. Bytes from
    `valid` to `size` are zeros whatever their clusters hold. Clusters of a compressed or encrypted
    stream do not hold its content as it is.
    """

    name: str
    size: int
    valid: int
    resident: bytes | None = None
    extents: tuple[Extent, ...] = ()
    compressed: bool = False
    encrypted: bool = False
    sparse: bool = False
    compression_unit: int = 0

    @property
    def readable(self) -> bool:
        """Whether the clusters hold the content as it is, so that blocks can be copied."""
        return not (self.compressed or self.encrypted)

    def data(self) -> Iterator[Extent]:
        """Yield what of the extents is content: nothing from `valid` on."""
        for extent in self.extents:
            length = min(extent.length, self.valid - extent.start)
            if length > 0:
                yield Extent(extent.start, length, extent.place)


@dataclass(slots=True)
class File:
    """A file or directory. `paths` go from the root, `/` between, none in front; hard links have
    several, and a backup keeps the file under the first.

    `attributes` are the file system's own, whole, by the name under which NTFS-3G shows them as
    extended attributes of the `system` class: `ntfs_acl`, `ntfs_attrib`, `ntfs_times`,
    `ntfs_reparse_data`, `ntfs_object_id`, `ntfs_ea`, `ntfs_dos_name`.
    """

    number: int
    sequence: int
    is_directory: bool
    paths: tuple[str, ...]
    modified: int
    """Nanoseconds since 1970, UTC."""
    streams: tuple[Stream, ...] = ()
    attributes: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The path that a backup keeps it under."""
        return self.paths[0]

    @property
    def first_place(self) -> int:
        """Where on the volume its first data lies: the order in which files are read best."""
        return min((each.extents[0].place for each in self.streams if each.extents), default=0)


@dataclass(frozen=True, slots=True)
class VolumeFacts:
    """A volume as a whole. `start` is where it begins on its disk, `size` all that is its."""

    file_system: str
    start: int
    size: int
    sector_size: int
    cluster_size: int
    label: str
    serial: str
    dirty: bool
    """Not cleanly unmounted, or to be checked: its own mark."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Something of the volume that cannot be read as what it should be; the rest can."""

    number: int | None
    """Of the file record, where it is one."""
    why: str
