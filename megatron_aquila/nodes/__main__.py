"""The launcher of one of several nodes; recipes/launch/torchrun.sh starts it with what it finds in the environment."""

from __future__ import annotations

import argparse
import os
import sys
from typing import NoReturn

from megatron_aquila.errors import AquilaError


def main() -> NoReturn:
    parser = argparse.ArgumentParser(
        prog="python -m megatron_aquila.nodes",
        description="Run `aquila COMMAND` as ranks on this node and the others.",
        epilog="Exit codes: 0 done, 2 a user's error, 75 stopped by a signal and saved, another: given up.",
    )
    parser.add_argument("--nodes", default="1", help="how many: 3, or 1:3 for one to three (elastic)")
    parser.add_argument("--processes", type=int, default=None, help="ranks on this node; default: one a visible GPU")
    parser.add_argument("--endpoint", default="", help="where the nodes meet: host:port, or a file on a shared disk")
    parser.add_argument("--node-rank", type=int, default=None, help="0 holds the store at the endpoint")
    parser.add_argument("--job", default="aquila", help="tells jobs apart that meet at one endpoint")
    parser.add_argument("--address", default="", help="by which the other nodes reach this one")
    parser.add_argument("--max-restarts", type=int, default=10, help="after a crash, a hang, a lost node")
    parser.add_argument("--pause", type=float, default=10.0, help="seconds before the first restart; doubles each time")
    parser.add_argument("--join-timeout", type=float, default=1800.0, help="seconds that the nodes wait for each other")
    parser.add_argument("--last-call", type=float, default=30.0, help="seconds that nodes beyond the minimum are given")
    parser.add_argument("--keep-alive", type=float, default=5.0, help="seconds between signs of life")
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="behind --: train RECIPE [KEY=VALUE]...")
    given = parser.parse_args()

    from megatron_aquila.launch import run_on_node, visible_gpus
    from megatron_aquila.nodes.meeting import Nodes

    least, _, most = given.nodes.partition(":")
    try:
        minimum, maximum = int(least), int(most or least)
    except ValueError:
        parser.error(f"--nodes {given.nodes} is neither a number nor two, as in 1:3")
    if not 1 <= minimum <= maximum:
        parser.error(f"--nodes {given.nodes}: the first number is at least 1 and at most the second")
    host, _, port = given.endpoint.rpartition(":")
    if maximum > 1 and "/" not in given.endpoint and not (host and port.isdecimal()):
        parser.error(f"--endpoint {given.endpoint or 'is missing:'} must be host:port, or the path of a file")
    processes = given.processes or visible_gpus() or 1
    nodes = Nodes(
        minimum,
        maximum,
        given.endpoint,
        given.job,
        given.address,
        None if given.node_rank is None else given.node_rank == 0,
        given.join_timeout,
        given.last_call,
        given.keep_alive,
        6 * given.keep_alive,
    )
    try:
        code = run_on_node(processes, given.command, nodes=nodes, max_restarts=given.max_restarts, pause=given.pause)
    except AquilaError as error:
        print(f"aquila: {error}", file=sys.stderr)
        code = getattr(error, "exit_code", 2)
    sys.stderr.flush()
    os._exit(code)  # torch's threads of a lost rendezvous would hold the process for their time-outs


if __name__ == "__main__":
    main()
