"""Which backup an image of changes adds to, and what is said where there is none."""

import pytest

from serverfree.backup.catalog.facts import BackupFacts, Mode
from serverfree.backup.catalog.store import Catalog
from serverfree.backup.errors import BackupError
from serverfree.backup.parent import LATEST, find_parent

DISK, HERE, ELSEWHERE = "3a", "CART1", "CART2"


@pytest.fixture
def catalog(tmp_path):
    with Catalog.open(tmp_path / "catalog.sqlite") as opened:
        yield opened


def image(catalog, number: int, cartridge: str, **facts) -> str:
    facts = {"mode": Mode.IMAGE, "disk_designator": DISK, "generation": number, **facts}
    uuid = f"{number:08x}-1111-4222-8333-444444444444"
    writer = catalog.begin(
        BackupFacts(name="disk", created=number, uuid=uuid, medium_serial=cartridge, **facts)
    )
    writer.finish({}, blocks=1, size=1)
    return writer.id


def found(catalog, wanted: str | None, *, overwrite: bool = False):
    parent, why = find_parent(catalog, wanted, DISK, HERE, overwrite=overwrite)
    return parent and parent.id, why


def test_the_last_one_of_the_disk_on_the_cartridge_is_added_to(catalog):
    image(catalog, 1, HERE)
    last = image(catalog, 2, HERE)
    image(catalog, 3, HERE, disk_designator="3b")
    image(catalog, 4, HERE, mode=Mode.FILES)
    image(catalog, 5, HERE, generation=None)
    image(catalog, 6, ELSEWHERE)
    assert found(catalog, LATEST) == (last, "")
    assert found(catalog, None) == (None, "")


def test_where_there_is_none_it_is_said_why(catalog):
    assert found(catalog, LATEST) == (None, "there is no image of this disk yet to add to")
    other = image(catalog, 1, ELSEWHERE)
    assert found(catalog, LATEST) == (
        None,
        f"the last one, {other}, is on cartridge CART2, and what adds to it has to lie there too",
    )
    with pytest.raises(BackupError, match="on cartridge CART2, not on the one in the drive"):
        found(catalog, other)
    here = image(catalog, 2, HERE)
    assert found(catalog, here) == (here, "")
    assert found(catalog, LATEST, overwrite=True) == (
        None,
        "what is on the cartridge will be written over",
    )
    with pytest.raises(BackupError, match="would be written over"):
        found(catalog, here, overwrite=True)
