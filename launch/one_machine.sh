#!/usr/bin/env bash
# Trains on all devices of one machine; after a failure the run goes on where it was saved.
#
#   CONFIG=configs/stage1_mask.py DEVICES=8 launch/one_machine.sh [--set key=value ...]
#
# Stop it with Ctrl-C or SIGTERM: it saves, and the same command goes on.
set -euo pipefail

CONFIG="${CONFIG:-configs/stage1_mask.py}" # a file of configs/
DEVICES="${DEVICES:-8}"                           # GPUs or TPU chips of this machine
RESTARTS="${RESTARTS:-3}"                         # after failures, not after wrong arguments
FLASHMOTION="${FLASHMOTION:-flashmotion}"         # the command

# XLA takes three quarters of a GPU's memory unless it is told otherwise; plans count on this much.
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}"

child=0
trap '[ "$child" -eq 0 ] || kill -TERM "$child"' TERM INT

for attempt in $(seq 0 "$RESTARTS"); do
  "$FLASHMOTION" train --config "$CONFIG" --set "mesh.fsdp=$DEVICES" "$@" &
  child=$!
  status=0
  wait "$child" || status=$?
  while kill -0 "$child" 2>/dev/null; do # the signal ended the wait, not the run
    status=0
    wait "$child" || status=$?
  done
  case "$status" in
    0 | 130 | 143 | 2) exit "$status" ;; # done, stopped, or wrong arguments
  esac
  echo "one_machine.sh: attempt $attempt ended with status $status" >&2
done
exit "$status"
