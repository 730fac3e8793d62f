"""A lab's server that is a machine of its own, through the command line."""

from __future__ import annotations

import pytest

from tests.end_to_end.host_user import HostUser, database, files, host, net, user
from tests.end_to_end.server_user import begin_sweep

__all__ = ["database", "files", "host", "net", "user"]
pytestmark = pytest.mark.xdist_group("ssh")


def test_a_connection_that_is_cut_while_somebody_watches_is_opened_again(user: HostUser) -> None:
    """The other cases take minutes: `drill_hosts.py`."""
    running = begin_sweep(user, 200)
    user.host.hang_up()
    assert running.wait() == 0, user.said(running)
    user.assert_whole(200)
    assert user.attempt() == 1
    assert not user.host.running()
