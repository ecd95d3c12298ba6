"""The Sleuth Kit reads the same volumes: the clusters of each stream are the same."""

import pytest
import pytsk3

from serverfree.backup.device import FileDevice
from serverfree.backup.ntfs import Volume
from support.ntfs_images import Image, Images

pytestmark = pytest.mark.peer

DATA = 128
HOLE = pytsk3.TSK_FS_ATTR_RUN_FLAG_SPARSE
# It cannot open clusters above 64 KiB.
CASES = [
    ("rich", 4096, 512),
    ("rich", 512, 512),
    ("rich", 65_536, 512),
    ("rich", 4096, 4096),
    ("fragmented", 4096, 512),
    ("fragmented_mft", 4096, 512),
    ("vdl", 4096, 512),
    ("compressed", 4096, 512),
]

Extents = list[tuple[int, int, int]]


def theirs(image: Image, numbers: list[int], cluster: int) -> dict[tuple[int, str], object]:
    """Return by file record and stream: the size of a resident one, or its extents in bytes."""
    volume = pytsk3.FS_Info(pytsk3.Img_Info(str(image.path)))
    found: dict[tuple[int, str], object] = {}
    for number in numbers:
        for attribute in volume.open_meta(number):
            if int(attribute.info.type) != DATA:
                continue
            name = (attribute.info.name or b"").decode().replace("$Data", "")
            if attribute.info.flags & pytsk3.TSK_FS_ATTR_RES:
                found[number, name] = attribute.info.size
                continue
            extents: Extents = []
            for run in attribute:
                if run.flags & HOLE:
                    continue
                start, length, place = (
                    value * cluster for value in (run.offset, run.len, run.addr)
                )
                if extents:
                    first, count, at = extents[-1]
                    if first + count == start and at + count == place:
                        extents[-1] = first, count + length, at
                        continue
                extents.append((start, length, place))
            found[number, name] = extents
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_extents_agree(case: tuple[str, int, int], ntfs_images: Images) -> None:
    kind, cluster, sector = case
    image = ntfs_images.get(kind, 0, cluster, sector)
    files = list(Volume.open(FileDevice(str(image.path))).files())
    ours = {
        (file.number, stream.name): (
            stream.size
            if stream.resident is not None
            else [(each.start, each.length, each.place) for each in stream.extents]
        )
        for file in files
        for stream in file.streams
    }
    assert ours == theirs(image, [file.number for file in files], cluster)
