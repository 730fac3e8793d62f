"""A lab's server that is a machine of its own: restarted, cut off, slow, with another key, through the command line."""

from __future__ import annotations

import pytest

from tests.end_to_end.host_user import HostUser, database, files, host, net, user
from tests.end_to_end.server_user import begin_sweep

__all__ = ["database", "files", "host", "net", "user"]
pytestmark = pytest.mark.xdist_group("ssh")


def test_a_server_that_is_restarted_goes_on_with_the_run_while_somebody_watches(user: HostUser) -> None:
    running = begin_sweep(user, 300)
    user.host.reboot()
    assert running.wait() == 0, user.said(running)
    user.assert_whole(300)
    assert user.attempt() == 2
