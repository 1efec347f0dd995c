"""How the launchers of several nodes find each other, and what they tell each other while their ranks run.

They meet through torch's `c10d` rendezvous, whose store one of them holds, or a file on a disk that all see. Each
round of it has a store of its own, in which the keys here stand.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from megatron_aquila.errors import AquilaError
from megatron_aquila.nodes.verdict import Verdict

if TYPE_CHECKING:
    from torch.distributed import Store
    from torch.distributed.elastic.rendezvous import RendezvousHandler

_FAILED, _RESCALE, _LEFT, _MASTER = "failed", "rescale", "left", "master"
LOST_NODE = 1  # the exit code of a launcher whose last failure was another node's silence


class MeetingError(AquilaError):
    """The nodes did not come together."""

    exit_code = 1  # a launcher's: the next attempt may meet them


class JobEnded(AquilaError):
    """The others have ended the job while this node waited for a place in it."""


@dataclass(frozen=True)
class Nodes:
    """Which nodes make a world, and where they meet."""

    minimum: int = 1
    maximum: int = 1
    endpoint: str = ""  # host:port, or the path of a file (it has a slash)
    job: str = "aquila"  # jobs that meet at one endpoint have different names
    address: str = ""  # by which the other nodes reach this one; empty: that of the way to the endpoint
    hosts: bool | None = None  # whether this node holds the store; None: if the endpoint's host is this machine
    join_timeout: float = 1800.0  # seconds that the others are waited for
    last_call: float = 30.0  # seconds that more than the minimum are waited for
    keep_alive: float = 5.0  # seconds between signs of life; three without make a node that waits a dead one
    silence: float = 30.0  # seconds without a sign of life after which a node whose ranks run counts as lost

    @property
    def in_file(self) -> bool:
        return "/" in self.endpoint


@dataclass(frozen=True)
class Place:
    """This node in one round of the meeting."""

    node: int
    nodes: int
    first_rank: int
    world_size: int
    master: tuple[str, int]  # the store of the ranks
    store: Store  # of this round
    server: Store | None  # held by node 0; the ranks lose theirs with it


class Meeting:
    """Rounds of nodes; a round lasts until a rank fails, a node is lost, or one more node wants to take part."""

    def __init__(self, nodes: Nodes, processes: int) -> None:
        self._nodes, self._processes = nodes, processes
        self._handler: RendezvousHandler | None = None

    def join(self) -> Place:
        """Wait for the others. Raises MeetingError after `join_timeout` seconds, JobEnded when there is no more job."""
        from torch.distributed.elastic.rendezvous import (
            RendezvousClosedError,
            RendezvousConnectionError,
            RendezvousGracefulExitError,
            RendezvousStateError,
            RendezvousTimeoutError,
        )

        if self._nodes.maximum == 1:
            return self._alone()
        deadline = time.monotonic() + self._nodes.join_timeout
        while True:
            try:
                if self._handler is None:
                    self._handler = self._new_handler()
                found = self._handler.next_rendezvous()
                return self._place(found.store, found.rank, found.world_size)
            except (RendezvousGracefulExitError, RendezvousClosedError) as error:
                raise JobEnded(f"the job '{self._nodes.job}' has ended at {self._nodes.endpoint}") from error
            except RendezvousTimeoutError as error:
                raise MeetingError(self._nobody()) from error
            # The node that held the store is gone, or not there yet; a store's own errors are RuntimeErrors.
            except (RendezvousConnectionError, RendezvousStateError, RuntimeError) as error:
                self._handler = None
                if time.monotonic() > deadline:
                    raise MeetingError(self._nobody()) from error
                time.sleep(min(2.0, self._nodes.keep_alive))

    def waiting(self) -> int:
        """Nodes that wait for a place. RuntimeError or torch's RendezvousError when the store is out of reach."""
        return 0 if self._handler is None else self._handler.num_nodes_waiting()

    def leave(self, place: Place, *, seconds: float = 30.0) -> None:
        """Say that this node is done with the round for good, and wait until all are: a store ends with its holder."""
        if place.nodes == 1 and self._handler is None:
            return
        deadline = time.monotonic() + seconds
        with suppress(Exception):  # who cannot be reached is gone already
            place.store.add(_LEFT, 1)
            while place.store.add(_LEFT, 0) < place.nodes and time.monotonic() < deadline:
                time.sleep(0.1)
            if self._handler is not None and not self._nodes.in_file:  # a file would stay closed for the next start
                self._handler.shutdown()

    def _alone(self) -> Place:
        from torch.distributed import TCPStore

        server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        return Place(0, 1, 0, self._processes, ("127.0.0.1", server.port), server, server)

    def _place(self, store: Store, node: int, nodes: int) -> Place:
        from torch.distributed import TCPStore

        server = None
        if node == 0:
            address = self._address()
            server = TCPStore(address, 0, is_master=True, wait_for_workers=False)
            store.set(_MASTER, f"{address} {server.port}")
        store.set(f"processes/{node}", str(self._processes))
        counts = [int(store.get(f"processes/{other}")) for other in range(nodes)]
        address, port = store.get(_MASTER).decode().split()
        return Place(node, nodes, sum(counts[:node]), sum(counts), (address, int(port)), store, server)

    def _new_handler(self) -> RendezvousHandler:
        from torch.distributed.elastic.rendezvous import RendezvousConnectionError, RendezvousParameters
        from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

        # Without it torch 2.13's handler publishes the ranks' store in its first round only, and a node that comes in a
        # later one waits for it in vain (DynamicRendezvousHandler.next_rendezvous); the ranks' store is ours here.
        os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
        nodes = self._nodes
        options: dict[str, Any] = {
            "join_timeout": round(nodes.join_timeout),
            "last_call_timeout": round(nodes.last_call),
            "keep_alive_interval": max(1, round(nodes.keep_alive)),
            "read_timeout": 20,
        }
        if nodes.in_file:
            options["store_type"] = "file"

        def handler(**more: Any) -> RendezvousHandler:
            return get_rendezvous_handler(
                RendezvousParameters(
                    "c10d", nodes.endpoint, nodes.job, nodes.minimum, nodes.maximum, self._address(), **options, **more
                )
            )

        if nodes.in_file:
            return handler()
        host = nodes.endpoint.rpartition(":")[0]
        if nodes.hosts if nodes.hosts is not None else _is_this_machine(host):
            with suppress(RendezvousConnectionError):  # another launcher of this machine holds it
                return handler(is_host="true")
        return handler(is_host="false")

    def _address(self) -> str:
        nodes = self._nodes
        if nodes.address:
            return nodes.address
        if nodes.in_file:
            return socket.getfqdn()
        host, _, port = nodes.endpoint.rpartition(":")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
            way.connect((host, int(port)))  # sends nothing
            return str(way.getsockname()[0])

    def _nobody(self) -> str:
        nodes = self._nodes
        return (
            f"{nodes.minimum} nodes did not meet at {nodes.endpoint} within {nodes.join_timeout:g} s: see that the "
            "launcher runs on each with the same endpoint and job, and that its port is open between them"
        )


class Contact:
    """A thread that tells the other nodes of this one, and notes what they tell, while the ranks of a round run."""

    def __init__(self, meeting: Meeting, nodes: Nodes, place: Place) -> None:
        self.failed: Verdict | None = None  # what ended the round on another node
        self.rescale = False  # the ranks stop in order to start as more
        self._meeting, self._nodes, self._place = meeting, nodes, place
        self._over = threading.Event()
        self._seen: dict[int, tuple[bytes, float]] = {}
        self._last = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="contact", daemon=True)
        if place.nodes > 1 or nodes.maximum > 1:
            self._thread.start()

    def tell(self, verdict: Verdict) -> None:
        """A rank of this node failed."""
        with suppress(Exception):  # who cannot be reached is gone already
            self._place.store.set(_FAILED, f"{verdict.code} {verdict.sentence}")

    def close(self) -> None:
        self._over.set()

    def _run(self) -> None:
        count = 0
        while not self._over.wait(min(1.0, self._nodes.keep_alive)):
            count += 1
            try:
                self._exchange(count)
                self._last = time.monotonic()
            except Exception:  # noqa: BLE001 - torch's stores raise half a dozen classes for a lost connection
                # The launcher that held the store may have ended well, and ours with it soon; or its node is dead.
                if time.monotonic() - self._last > 2 * self._nodes.silence:
                    self.failed = Verdict(LOST_NODE, "the node that holds the store of the rendezvous is lost")

    def _exchange(self, count: int) -> None:
        store, place = self._place.store, self._place
        store.set(f"alive/{place.node}", str(count))
        if store.check([_FAILED]):
            code, _, sentence = store.get(_FAILED).decode().partition(" ")
            self.failed = self.failed or Verdict(int(code), sentence)
        self.rescale = self.rescale or store.check([_RESCALE])
        for other in range(1, place.nodes) if place.node == 0 else ([0] if place.nodes > 1 else []):
            self._watch(other)
        if place.node == 0 and not self.rescale and place.nodes < self._nodes.maximum and self._meeting.waiting():
            store.set(_RESCALE, "1")
            self.rescale = True

    def _watch(self, other: int) -> None:
        key, now = f"alive/{other}", time.monotonic()
        sign = self._place.store.get(key) if self._place.store.check([key]) else b""
        if other not in self._seen or self._seen[other][0] != sign:
            self._seen[other] = (sign, now)
        elif now - self._seen[other][1] > self._nodes.silence and self.failed is None:
            if self._place.store.check([_LEFT]):  # the others are about to end
                return
            self.failed = Verdict(LOST_NODE, f"node {other} has given no sign of life for {self._nodes.silence:g} s")
            self.tell(self.failed)


def _is_this_machine(host: str) -> bool:
    """Whether `host` is an address of this machine: one that a socket can be bound to."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trial:
            trial.bind((host, 0))
        return True
    except OSError:
        return False
