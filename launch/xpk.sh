#!/usr/bin/env bash
# Trains on a TPU cluster managed by xpk (https://github.com/AI-Hypercomputer/xpk), which creates and
# queues a JobSet like that of jobset.yaml.
#
#   launch/xpk.sh            submit
#   launch/xpk.sh list       show the queue
#   launch/xpk.sh delete     stop
set -euo pipefail

PROJECT="${PROJECT:-your-project}"
ZONE="${ZONE:-us-east5-a}"
CLUSTER="${CLUSTER:-your-cluster}"
NAME="${NAME:-flashmotion}"
TPU="${TPU:-v5p-32}"                              # 16 chips; `flashmotion plan` says what fits
CHIPS="${CHIPS:-16}"                              # chips in the slice: shards of the weights
IMAGE="${IMAGE:-us-docker.pkg.dev/your-project/flashmotion/tpu:latest}"
CONFIG="${CONFIG:-configs/stage1_mask.py}"
OPTIONS="${OPTIONS:---set batch_size=16}"         # more options of `flashmotion train`
RESTARTS="${RESTARTS:-20}"

WHERE=(--project "$PROJECT" --zone "$ZONE" --cluster "$CLUSTER")

case "${1:-submit}" in
  submit)
    xpk workload create "${WHERE[@]}" --workload "$NAME" --tpu-type "$TPU" --num-slices 1 \
      --docker-image "$IMAGE" --max-restarts "$RESTARTS" \
      --command "cd /mnt/flashmotion && PYTHONPATH=/opt/flashmotion_jax flashmotion train \
        --config /opt/flashmotion_jax/$CONFIG --distributed auto --set mesh.fsdp=$CHIPS $OPTIONS"
    ;;
  list) xpk workload list "${WHERE[@]}" ;;
  delete) xpk workload delete "${WHERE[@]}" --workload "$NAME" ;;
  *)
    sed -n '2,8p' "$0" >&2
    exit 2
    ;;
esac
