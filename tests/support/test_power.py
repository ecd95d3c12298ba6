"""The failing disk fails whom it shall, and nobody else."""

import os
import threading

import pytest

from support.power import FailingDisk, PowerCut


def test_others_keep_their_power(tmp_path):
    ours, others = tmp_path / "ours", tmp_path / "others"
    ours.mkdir()
    others.mkdir()
    (ours / "file").touch()
    disk = FailingDisk(ours, 2)
    with (ours / "file").open("r+b") as file, (others / "file").open("wb") as other:

        def elsewhere():
            for _ in range(5):
                os.pwrite(other.fileno(), b"there", 0)
                os.fdatasync(other.fileno())

        with disk.installed():
            late = os.pwrite
            elsewhere()
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
            os.pwrite(file.fileno(), b"1", 0)
            os.ftruncate(file.fileno(), 9)
            with pytest.raises(PowerCut):
                os.fdatasync(file.fileno())
            with pytest.raises(PowerCut):
                os.pwrite(file.fileno(), b"2", 0)
        assert late(file.fileno(), b"3", 0) == 1, "a patch that outlived its time does nothing"
        assert os.pread(file.fileno(), 9, 0) == b"3" + bytes(8)
    assert (others / "file").read_bytes() == b"there"
