#!/usr/bin/env bash
# Trains on all devices of one machine; after a failure, resumes from the last checkpoint.
#
#   CONFIG=configs/stage1_mask.py DEVICES=8 launch/one_machine.sh [--set key=value ...]
#
# Ctrl-C or SIGTERM saves and stops; the same command resumes.
set -euo pipefail

CONFIG="${CONFIG:-configs/stage1_mask.py}"        # a configuration
DEVICES="${DEVICES:-8}"                           # GPUs or TPU chips of this machine
RESTARTS="${RESTARTS:-3}"                         # after failures, not after invalid arguments
FLASHMOTION="${FLASHMOTION:-flashmotion}"         # the command

# XLA uses three quarters of a GPU's memory by default; plans assume this fraction.
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}"

child=0
trap '[ "$child" -eq 0 ] || kill -TERM "$child"' TERM INT

for attempt in $(seq 0 "$RESTARTS"); do
  "$FLASHMOTION" train --config "$CONFIG" --set "mesh.fsdp=$DEVICES" "$@" &
  child=$!
  status=0
  wait "$child" || status=$?
  while kill -0 "$child" 2>/dev/null; do # a signal interrupts wait, not the run
    status=0
    wait "$child" || status=$?
  done
  case "$status" in
    0 | 130 | 143 | 2) exit "$status" ;; # done, stopped, or invalid arguments
  esac
  echo "one_machine.sh: attempt $attempt exited with status $status" >&2
done
exit "$status"
