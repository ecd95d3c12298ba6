"""What the copy tests share."""

import pytest


@pytest.fixture(params=[False, True], ids=["at once", "lazy"])
def lazy(request: pytest.FixtureRequest) -> bool:
    return request.param
