"""The boot sector: how large everything is, and where the $MFT begins."""

from dataclasses import dataclass
from struct import Struct

from serverfree.backup.ntfs.errors import NtfsError

# Bytes per sector and sectors per cluster; sectors, clusters of $MFT and $MFTMirr, clusters per
# file record and per index block; serial number.
_PARAMETERS = Struct("<11xHB26xQQQb3xb3xQ")
_OEM_ID = b"NTFS    "
LENGTH = 512
LARGEST_CLUSTER = 2 << 20


@dataclass(frozen=True, slots=True)
class Boot:
    """Sizes in bytes, `mft` and `mirror` in clusters, `sectors` without the backup boot sector."""

    sector_size: int
    cluster_size: int
    sectors: int
    mft: int
    mirror: int
    record_size: int
    index_size: int
    serial: int

    @classmethod
    def unpack(cls, data: bytes) -> "Boot":
        """Decode and check the first 512 bytes of a volume."""
        if len(data) < LENGTH or data[3:11] != _OEM_ID:
            raise NtfsError("no NTFS volume begins here: the boot sector is another's")
        sector_size, per_cluster, sectors, mft, mirror, per_record, per_index, serial = (
            _PARAMETERS.unpack_from(data)
        )
        if sector_size not in (512, 1024, 2048, 4096):
            raise NtfsError(f"the boot sector tells of sectors of {sector_size} bytes")
        # Above 128 the byte is the negative of a binary logarithm: clusters of more than 64 KiB.
        if per_cluster > 0x80:
            per_cluster = 1 << min(256 - per_cluster, 32)
        cluster_size = sector_size * per_cluster
        if not _is_power_of_two(per_cluster) or cluster_size > LARGEST_CLUSTER:
            raise NtfsError(f"the boot sector tells of {per_cluster} sectors in a cluster")
        boot = cls(
            sector_size,
            cluster_size,
            sectors,
            mft,
            mirror,
            _size(per_record, cluster_size, "file record"),
            _size(per_index, cluster_size, "index block"),
            serial,
        )
        if not boot.clusters or mft >= boot.clusters:
            raise NtfsError(f"the $MFT begins at cluster {mft} of {boot.clusters}")
        return boot

    @property
    def clusters(self) -> int:
        """How many clusters the volume has; $Bitmap has a bit for each."""
        return self.sectors * self.sector_size // self.cluster_size

    @property
    def backup(self) -> int:
        """Where the backup boot sector lies: behind the last sector, outside all clusters."""
        return self.sectors * self.sector_size

    @property
    def size(self) -> int:
        """All bytes of the volume, the backup boot sector included."""
        return self.backup + self.sector_size


def _size(clusters: int, cluster_size: int, what: str) -> int:
    """Decode a number of clusters that is the negative of a binary logarithm where it is small."""
    size = clusters * cluster_size if clusters > 0 else 1 << min(-clusters, 32)
    if not 512 <= size <= 1 << 16 or not _is_power_of_two(size):
        raise NtfsError(f"the boot sector tells of a {what} of {size} bytes")
    return size


def _is_power_of_two(value: int) -> bool:
    return value > 0 and not value & (value - 1)
