"""What the tests of the backup share."""

import pytest

from support.ntfs_images import Images


@pytest.fixture(scope="session")
def ntfs_images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """NTFS volumes by kind, with what lies on them, each made once: `get("rich").copy(path)`."""
    return Images(tmp_path_factory.mktemp("ntfs"))
