"""What refine promises holds on the device and on the host: modules that ask for `loop` run twice."""

import pytest

from qjax.descend import chunk


@pytest.fixture(params=["device", "host"])
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where "auto" puts the loop over the steps."""
    monkeypatch.setattr(chunk, "slow_inside_loops", lambda jaxpr, mesh: request.param == "host")
    return str(request.param)
