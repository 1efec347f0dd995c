"""Several nodes: they meet, lose each other, come back, stop together."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron_aquila.nodes.agent import Agent
from megatron_aquila.nodes.meeting import MeetingError, Nodes
from tests.megatron_aquila.launch.simulated import Node, starts, wait_until


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def loopback(minimum: int, maximum: int, **changes: object) -> Nodes:
    settings = {"join_timeout": 60.0, "last_call": 1.0, "keep_alive": 1.0, "silence": 3.0, **changes}
    endpoint = settings.pop("endpoint", f"127.0.0.1:{free_port()}")
    return Nodes(minimum, maximum, str(endpoint), **settings)  # type: ignore[arg-type]


def worlds(folder: Path) -> list[int]:
    """The size of the world of every rank 0 that was started."""
    return [int(one["WORLD_SIZE"]) for one in starts(folder) if one["RANK"] == "0"]


def test_a_node_is_lost_and_another_comes_in_its_place(tmp_path: Path) -> None:
    """The survivor's rank hangs, as in a collective of NCCL: that the node is silent is what ends it."""
    nodes = loopback(1, 2)
    one = Node(tmp_path, nodes, processes=2, max_restarts=1)
    wait_until(lambda: (tmp_path / "rank.py").exists() and len(starts(tmp_path)) == 2, one)  # holds the store
    two = Node(tmp_path, nodes, processes=1)
    wait_until(lambda: len(starts(tmp_path)) == 5, one, two)
    assert worlds(tmp_path) == [2, 3], "the ranks saved and started as more"
    latest = starts(tmp_path)[2:]
    assert sorted((one["RANK"], one["LOCAL_RANK"], one["GROUP_RANK"]) for one in latest) in (
        [("0", "0", "0"), ("1", "1", "0"), ("2", "0", "1")],
        [("0", "0", "0"), ("1", "0", "1"), ("2", "1", "1")],
    )
    two.lose()
    wait_until(lambda: len(starts(tmp_path)) == 7, one)
    assert worlds(tmp_path)[2:] == [2]
    again = Node(tmp_path, nodes, processes=1)
    wait_until(lambda: len(starts(tmp_path)) == 10, one, again)
    assert worlds(tmp_path)[3:] == [3]
    (tmp_path / "finish").touch()
    assert (one.end(), again.end()) == (0, 0), one.said()
    assert "(restart 1 of 1)" in one.said(), "only the loss counts, not the coming"


def test_a_signal_to_one_node_ends_both_after_the_slowest_has_saved(tmp_path: Path) -> None:
    nodes = loopback(2, 2)
    one, two = Node(tmp_path, nodes), Node(tmp_path, nodes)
    wait_until(lambda: len(starts(tmp_path)) == 2, one, two)
    assert worlds(tmp_path) == [2]
    two.signal(signal.SIGUSR1)
    assert (one.end(), two.end()) == (75, 75), one.said() + two.said()
    assert len(starts(tmp_path)) == 2


def test_a_crash_starts_both_again_and_a_users_error_ends_both(tmp_path: Path) -> None:
    nodes = loopback(2, 2)
    one, two = Node(tmp_path, nodes), Node(tmp_path, nodes)
    wait_until(lambda: len(starts(tmp_path)) == 2, one, two)
    (tmp_path / "code.1").write_text("9")
    wait_until(lambda: len(starts(tmp_path)) == 4, one, two)
    assert worlds(tmp_path) == [2, 2]
    (tmp_path / "code.0").write_text("2")
    assert (one.end(), two.end()) == (2, 2), one.said() + two.said()
    for node in (one, two):
        assert "rank 1 ended with exit code 9" in node.said() and "(restart 1 of 3)" in node.said()


def test_a_meeting_in_a_file_outlives_every_node(tmp_path: Path) -> None:
    nodes = loopback(1, 2, endpoint=tmp_path / "meet", address="127.0.0.1")
    one = Node(tmp_path, nodes)
    wait_until(lambda: len(starts(tmp_path)) == 1, one)
    two = Node(tmp_path, nodes)
    wait_until(lambda: len(starts(tmp_path)) == 3, one, two)
    one.lose()  # it held the ranks' store too
    wait_until(lambda: len(starts(tmp_path)) == 4, two)
    assert worlds(tmp_path) == [1, 2, 1]
    (tmp_path / "finish").touch()
    assert two.end() == 0, two.said()


def test_a_node_that_waits_for_others_is_stopped_by_a_signal(tmp_path: Path) -> None:
    lonely = Node(tmp_path, loopback(2, 2))
    wait_until(lambda: lonely.log.exists(), lonely)
    lonely.signal(signal.SIGTERM)
    assert lonely.end(30) in (75, -signal.SIGTERM), lonely.said()


def test_nobody_comes() -> None:
    with pytest.raises(MeetingError, match=r"2 nodes did not meet at 127\.0\.0\.1:\d+ within 1 s: see that"):
        Agent(["true"], 1, loopback(2, 2, join_timeout=1.0)).run()


@pytest.fixture
def namespaces() -> Iterator[tuple[str, str]]:
    """Two machines with a cable between them: 10.77.0.1 and 10.77.0.2."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    one, two = (f"aquila-{os.getpid()}-{side}" for side in "ab")
    made = subprocess.run(["ip", "netns", "add", one], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"this machine makes no network namespaces: {made.stderr.strip()}")
    try:
        cable = ["type", "veth", "peer", "name", "eth0", "netns", two]
        for arguments in (
            ["netns", "add", two],
            ["-n", one, "link", "add", "eth0", *cable],
            *[["-n", name, "addr", "add", f"10.77.0.{i}/24", "dev", "eth0"] for i, name in ((1, one), (2, two))],
            *[["-n", name, "link", "set", link, "up"] for name in (one, two) for link in ("lo", "eth0")],
        ):
            subprocess.run(["ip", *arguments], check=True, capture_output=True)
        yield one, two
    finally:
        for name in (one, two):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def test_two_machines_by_network_namespaces(tmp_path: Path, namespaces: tuple[str, str]) -> None:
    """The node that holds the store is lost and comes back: the other waits for it."""
    nodes = loopback(2, 2, endpoint="10.77.0.1:29400")
    one, two = (Node(tmp_path, nodes, namespace=name) for name in namespaces)
    wait_until(lambda: len(starts(tmp_path)) == 2, one, two)
    assert worlds(tmp_path) == [2]
    assert {start["MASTER_ADDR"] for start in starts(tmp_path)} <= {"10.77.0.1", "10.77.0.2"}
    one.lose()
    one = Node(tmp_path, nodes, namespace=namespaces[0])
    wait_until(lambda: len(starts(tmp_path)) == 4, one, two)
    assert worlds(tmp_path) == [2, 2]
    (tmp_path / "finish").touch()
    assert (one.end(), two.end()) == (0, 0), one.said() + two.said()
