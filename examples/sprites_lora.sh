#!/usr/bin/env bash
# Sprites: stage 1 with a ControlNet that is trained as a LoRA, compared with the whole ControlNet on
# the same generator, images, boxes and noise. It needs what examples/sprites.sh makes before stage
# 1 and in stage 1, or `examples/sprites.sh stored`. Hours on two CPU cores; resumes.
#
#     examples/sprites_lora.sh
set -euo pipefail
cd "$(dirname "$0")/.."
export JAX_PLATFORMS=cpu XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=2"
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"

for maps in mask box; do
  flashmotion train --config "configs/sprites/stage1_lora.py:$maps" --set mesh.data=2
done
slow=runs/sprites/slow_generator/model
python examples/measure_sprites.py runs/sprites/measured_lora --per-group 16 --against whole \
  "whole=controlnet:$slow+runs/sprites/stage1_box_controlnet/model" \
  "LoRA=controlnet:$slow+runs/sprites/stage1_lora_box/model"
