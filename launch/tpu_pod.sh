#!/usr/bin/env bash
# Trains on a slice of a Google Cloud TPU pod, rented as a queued resource.
#
#   launch/tpu_pod.sh create     request the slice as a queued resource
#   launch/tpu_pod.sh setup      install storage, code and packages on all workers
#   launch/tpu_pod.sh train      start or resume on all workers
#   launch/tpu_pod.sh keep       all of the above, repeatedly, until the run is done
#   launch/tpu_pod.sh watch      the log of worker 0
#   launch/tpu_pod.sh stop       save and stop; `train` resumes
#   launch/tpu_pod.sh delete     delete the slice, which ends billing
set -euo pipefail

PROJECT="${PROJECT:-your-project}"
ZONE="${ZONE:-us-east5-a}"
NAME="${NAME:-flashmotion}"
ACCELERATOR="${ACCELERATOR:-v5p-32}"           # 16 chips; `flashmotion plan` says what fits
RUNTIME="${RUNTIME:-v2-alpha-tpuv5}"           # v6e: v2-alpha-tpuv6e
SPOT="${SPOT:-yes}"                            # cheaper, but can be preempted at any time
CHIPS="${CHIPS:-16}"                           # chips in the slice: shards of the weights
CONFIG="${CONFIG:-configs/stage1_mask.py}"
OPTIONS="${OPTIONS:---set batch_size=16}"      # more options of `flashmotion train`
NFS="${NFS:-10.0.0.2:/share}"                  # Filestore with checkpoints/, data/ and runs/
REPOSITORY="${REPOSITORY:-https://github.com/flashmotion-jax/flashmotion_jax}"

WHERE=(--project "$PROJECT" --zone "$ZONE" --quiet)

on_workers() { # WORKER COMMAND
  gcloud compute tpus tpu-vm ssh "$NAME" "${WHERE[@]}" --worker="$1" --command="$2"
}

state() {
  gcloud compute tpus queued-resources describe "$NAME" "${WHERE[@]}" \
    --format='value(state.state)' 2>/dev/null || echo NONE
}

create() {
  local spot=()
  [ "$SPOT" != yes ] || spot=(--spot)
  gcloud compute tpus queued-resources create "$NAME" "${WHERE[@]}" --node-id "$NAME" \
    --accelerator-type "$ACCELERATOR" --runtime-version "$RUNTIME" "${spot[@]}"
}

setup() {
  on_workers all "set -e
    sudo apt-get install -y -q nfs-common python3-venv
    sudo mkdir -p /mnt/flashmotion
    mountpoint -q /mnt/flashmotion || sudo mount -t nfs '$NFS' /mnt/flashmotion
    [ -d ~/flashmotion_jax ] || git clone -q '$REPOSITORY' ~/flashmotion_jax
    python3 -m venv ~/venv
    ~/venv/bin/pip install -q -e ~/flashmotion_jax'[tpu,train]'"
}

train() {
  on_workers all "cd /mnt/flashmotion && PYTHONPATH=~/flashmotion_jax nohup \
    ~/venv/bin/flashmotion train --config ~/flashmotion_jax/$CONFIG --distributed auto \
    --set mesh.fsdp=$CHIPS $OPTIONS >~/train.log 2>&1 & echo \$! >~/train.pid"
}

# Prints the status of the command on worker 0: running, done or ended.
progress() {
  # shellcheck disable=SC2016 # expanded by the worker's shell
  on_workers 0 'if kill -0 "$(cat ~/train.pid)" 2>/dev/null; then echo running
    else grep -q "; wrote " ~/train.log && echo done || echo ended; fi'
}

keep() {
  while true; do
    case "$(state)" in
      ACTIVE)
        case "$(progress 2>/dev/null || echo ended)" in
          done) echo "the run is done; launch/tpu_pod.sh delete"; return ;;
          ended) setup && train ;;
        esac
        ;;
      SUSPENDED | FAILED) delete ;;
      NONE) create ;;
    esac
    sleep 60
  done
}

stop() { # signal one worker: all save and stop after the same step
  # shellcheck disable=SC2016 # expanded by the worker's shell
  on_workers 0 'kill -TERM "$(cat ~/train.pid)"'
}

delete() {
  gcloud compute tpus queued-resources delete "$NAME" "${WHERE[@]}" --force
}

case "${1:-}" in
  create | setup | train | keep | stop | delete) "$1" ;;
  watch) on_workers 0 'tail -n 50 -f ~/train.log' ;;
  *)
    sed -n '2,10p' "$0" >&2
    exit 2
    ;;
esac
