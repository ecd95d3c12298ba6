"""A catalog of 100,000 files, as the bench measures it."""

import time

import pytest
from bench.catalog import FILES, measure


@pytest.mark.long
def test_a_hundred_thousand_files_take_seconds(capsys):
    found = measure(FILES, time.process_time)  # whoever else keeps the machine busy
    with capsys.disabled():
        print("", *(f"{name}: {value:.5g}" for name, value in found.items()), sep="\n")
    assert found["write"] < 5
    assert found["look a path up"] < 0.005
    assert found["MB packed"] < 25
