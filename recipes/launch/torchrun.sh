#!/usr/bin/env bash
# Train on this node, or on several: run the same command on each.
#
#   recipes/launch/torchrun.sh RECIPE [KEY=VALUE]...
#   NNODES=3 RDZV_ENDPOINT=gpu01:29400 recipes/launch/torchrun.sh RECIPE      on each of three nodes
#   NNODES=1:3 RDZV_ENDPOINT=/shared/runs/meet recipes/launch/torchrun.sh RECIPE      on one to three (elastic)
#
# Ranks get torchrun's variables, and the nodes meet through torch's rendezvous. Exit code: 0 done; 2 a mistake to mend;
# 75 stopped by SIGTERM or SIGUSR1 and saved, the same command goes on; another: given up after MAX_RESTARTS.
# docs/clusters.md says all of it.
#
#   NNODES         how many nodes, or MIN:MAX; default 1
#   RDZV_ENDPOINT  where they meet: HOST:PORT, or a file on a disk that all see; default MASTER_ADDR:MASTER_PORT
#   MASTER_ADDR, MASTER_PORT   the same in two parts; the port's default is 29400
#   NODE_RANK      0 on the node that holds the endpoint; only needed where its name is not that machine's own
#   GPUS           processes on this node; default: one for each GPU that is visible
#   JOB_ID         tells jobs apart that meet at one endpoint; default aquila
#   LOCAL_ADDR     the address by which the other nodes reach this one, where it is not the one on the way to the endpoint
#   MAX_RESTARTS   after a crash, a hang, a lost node; default 10
#   RESTART_PAUSE  seconds before the first restart, doubled each time; default 10
#   JOIN_TIMEOUT, LAST_CALL, KEEP_ALIVE   seconds that nodes wait for each other, that nodes beyond MIN are given, and
#                  between signs of life; defaults 1800, 30, 5
#   COMMAND        another verb than train (reference, eval)
#   PYTHON         default: that of this checkout's .venv, else python3
set -euo pipefail

if [[ $# -eq 0 || "$1" == -h || "$1" == --help ]]; then
    sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0"
    [[ $# -gt 0 ]] && exit 0
    exit 2
fi

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-$here/../../.venv/bin/python}
if [[ -z ${PYTHON:-} && ! -x $python ]]; then
    python=python3
fi

endpoint=${RDZV_ENDPOINT:-}
if [[ -z $endpoint && -n ${MASTER_ADDR:-} ]]; then
    endpoint=$MASTER_ADDR:${MASTER_PORT:-29400}
fi

options=(--nodes "${NNODES:-1}" --job "${JOB_ID:-aquila}")
options+=(--max-restarts "${MAX_RESTARTS:-10}" --pause "${RESTART_PAUSE:-10}")
options+=(--join-timeout "${JOIN_TIMEOUT:-1800}" --last-call "${LAST_CALL:-30}" --keep-alive "${KEEP_ALIVE:-5}")
[[ -n $endpoint ]] && options+=(--endpoint "$endpoint")
[[ -n ${GPUS:-} ]] && options+=(--processes "$GPUS")
[[ -n ${NODE_RANK:-} ]] && options+=(--node-rank "$NODE_RANK")
[[ -n ${LOCAL_ADDR:-} ]] && options+=(--address "$LOCAL_ADDR")

# What an earlier launcher has set must not make ranks of this one's ranks.
unset RANK WORLD_SIZE LOCAL_RANK MASTER_ADDR MASTER_PORT
export PYTHONUNBUFFERED=1

# exec: a signal to this script is a signal to the launcher
exec "$python" -m megatron_aquila.nodes "${options[@]}" -- "${COMMAND:-train}" "$@"
