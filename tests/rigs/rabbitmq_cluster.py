"""A RabbitMQ cluster of three real nodes, with a TCP proxy on each way from a node to another."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

from bridge.testing.servers import RabbitMQServer, wait_for
from bridge.testing.tcp_proxy import TcpProxy

T = TypeVar("T")

NODES = 3
NET_TICK_SECONDS = 10
"""What the documentation recommends: RabbitMQ itself takes this long to notice that a node is frozen."""
_CALL_SECONDS = 30.0
_ALIVE_REQUEST, _ALIVE_ANSWER = 120, 118
_PORT_REQUEST, _PORT_ANSWER = 122, 119
_NAMES_REQUEST = 110
_NOT_FOUND = 1


class _PortMapper:
    """Stands in for one node's `epmd`: tells that node, and no other, at which port it reaches each node.

    Erlang's port mapper protocol, as its "Distribution Protocol" describes it. A node asks it for the port of another
    one, and gets the port of the proxy between the two.
    """

    def __init__(self, ports: dict[str, int]) -> None:
        self._ports = ports
        self._server: asyncio.Server | None = None
        self._closed = False

    @property
    def port(self) -> int:
        assert self._server is not None, "the port mapper has not been started"
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)

    async def close(self) -> None:
        assert self._server is not None
        self._closed = True
        self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            (length,) = struct.unpack(">H", await reader.readexactly(2))
            request = await reader.readexactly(length)
            match request[0]:
                case code if code == _ALIVE_REQUEST:
                    writer.write(struct.pack(">BBI", _ALIVE_ANSWER, 0, 1))
                    await reader.read()  # a node keeps this connection for as long as it lives
                case code if code == _PORT_REQUEST:
                    writer.write(self._port_of(request[1:]))
                case code if code == _NAMES_REQUEST:
                    writer.write(struct.pack(">I", self.port))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            if not self._closed:
                raise
        finally:
            writer.close()

    def _port_of(self, name: bytes) -> bytes:
        port = self._ports.get(name.decode())
        if port is None:
            return struct.pack(">BB", _PORT_ANSWER, _NOT_FOUND)
        return struct.pack(">BBHBBHHH", _PORT_ANSWER, 0, port, 77, 0, 6, 5, len(name)) + name + b"\0\0"


class _Node(RabbitMQServer):
    """One node of the cluster, which finds the others by a port mapper of its own."""

    def __init__(self, cookie: str | None) -> None:
        super().__init__()
        self._cookie = cookie or self._cookie
        self.mapper_port = 0

    @property
    def name(self) -> str:
        return self.node.partition("@")[0]

    @property
    def cookie(self) -> str:
        return self._cookie

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "ERL_EPMD_PORT": str(self.mapper_port)}


class RabbitMQCluster:
    """Three nodes on 127.0.0.1. Its proxies run in a thread of their own, for all tests that share the cluster."""

    def __init__(self) -> None:
        first = _Node(None)
        self.nodes = [first, *(_Node(first.cookie) for _ in range(NODES - 1))]
        self._ways: dict[tuple[int, int], TcpProxy] = {}
        self._mappers: list[_PortMapper] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cluster-network", daemon=True)

    @property
    def url(self) -> str:
        """The URL with all nodes."""
        return self.url_of(*range(NODES))

    def url_of(self, *indices: int) -> str:
        """Return a URL that names these nodes, in this order."""
        return f"amqp://guest:guest@{','.join(f'127.0.0.1:{self.nodes[index].port}' for index in indices)}//"

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._open_network())
        names = "".join(
            f"cluster_formation.classic_config.nodes.{number} = {node.node}\n"
            for number, node in enumerate(self.nodes, 1)
        )
        for node, mapper in zip(self.nodes, self._mappers, strict=True):
            node.mapper_port = mapper.port
            with node.config.open("a") as config:
                config.write(f"cluster_partition_handling = pause_minority\nnet_ticktime = {NET_TICK_SECONDS}\n{names}")
        self._start_together(range(NODES))
        wait_for(lambda: self._running() == NODES, "all nodes are in the cluster")
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.resume()
            node.remove()
        self._call(self._close_network())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def start(self, *indices: int) -> None:
        """Start nodes that were killed, and wait until they answer."""
        self._start_together(indices)

    def leader_of(self, queue: str) -> int:
        """Return the index of the node that leads a quorum queue."""
        for node in self.nodes:
            with contextlib.suppress(RuntimeError):
                text = node.ctl("eval", f'rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)).')
                # The queue's pid is {its Raft name, the node of its leader}.
                return next(index for index, other in enumerate(self.nodes) if f",'{other.node}'}}" in _flat(text))
        raise AssertionError(f"no node knows who leads {queue}")

    def isolate(self, index: int) -> None:
        """Cut a node off from the others: its ways end at once, and no new one is made."""
        self._call(self._set_ways(index, refuse=True))

    def rejoin(self, index: int) -> None:
        """Let a node reach the others again."""
        self._call(self._set_ways(index, refuse=False))

    def wait_until_whole(self) -> None:
        """Return when all nodes are running in the cluster."""
        wait_for(lambda: self._running() == NODES, "all nodes are in the cluster again")

    def _running(self) -> int:
        try:
            text = self.nodes[0].ctl("eval", "length(rabbit_nodes:all_running()).")
        except RuntimeError:
            return 0
        return int(text.strip() or 0)

    def _start_together(self, indices: Any) -> None:
        failures: list[BaseException] = []

        def start(index: int) -> None:
            try:
                self.nodes[index].start()
            except BaseException as error:  # noqa: BLE001 - it is raised below
                failures.append(error)

        threads = [threading.Thread(target=start, args=(index,)) for index in indices]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    async def _open_network(self) -> None:
        for start in range(NODES):
            ports = {self.nodes[start].name: self.nodes[start].dist_port}
            for end in range(NODES):
                if end != start:
                    way = TcpProxy(self.nodes[end].dist_port)
                    self._ways[start, end] = await way.__aenter__()
                    ports[self.nodes[end].name] = way.port
            mapper = _PortMapper(ports)
            await mapper.start()
            self._mappers.append(mapper)

    async def _close_network(self) -> None:
        for mapper in self._mappers:
            await mapper.close()
        for way in self._ways.values():
            await way.__aexit__()
        pending = asyncio.all_tasks() - {asyncio.current_task()}
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    async def _set_ways(self, index: int, *, refuse: bool) -> None:
        for ends, way in self._ways.items():
            if index in ends:
                way.refuse(refuse=refuse)
                if refuse:
                    way.cut()

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_CALL_SECONDS)


def _flat(text: str) -> str:
    return "".join(text.split())
