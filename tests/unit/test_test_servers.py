"""The servers that tests start: where they listen, and what is said when one does not come up."""

from __future__ import annotations

import pytest

from bridge.testing import servers
from bridge.testing.free_port import free_port
from bridge.testing.servers import RabbitMQServer


def test_free_port_is_outside_linuxs_ephemeral_range():
    lowest = 32_768  # by Linux's default for net.ipv4.ip_local_port_range; a machine may be set otherwise
    ports = {free_port() for _ in range(200)}
    assert len(ports) > 180
    assert 1024 < min(ports) < max(ports) < lowest


def test_failed_node_is_reported_with_its_output(monkeypatch):
    monkeypatch.setattr(servers, "_MAX_START_ATTEMPTS", 2)
    node = RabbitMQServer()
    node.config.write_text("listeners.tcp.1 = nowhere\n")
    try:
        with pytest.raises(RuntimeError, match=r"(?s)ended 2 times while starting:.*nowhere"):
            node.start()
    finally:
        node.remove()
