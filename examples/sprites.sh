#!/usr/bin/env bash
# The small model from scratch: autoencoder, multi-step generator, and the three stages with both
# adapters; clips are drawn when they are needed. Every step is a command of its own that resumes
# where it was stopped, so run this again after an interruption. About a day on two CPU cores,
# without the ablations; three hours from the stored first half.
#
#     examples/sprites.sh              # the models
#     examples/sprites.sh stored       # stages 2 and 3 alone, from the stored first half
#     examples/sprites.sh ablations    # and, after them, the paper's Tables 2 and 3 in miniature
#     examples/sprites.sh stored ablations
set -euo pipefail
cd "$(dirname "$0")/.."

# XLA runs a step on two simulated devices, half of the batch each, faster than on one.
export JAX_PLATFORMS=cpu XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=2"
# Huge pages for what a step allocates and frees (Linux, glibc) take a fifth to a quarter of its time
# away; jemalloc instead (apt-get install libjemalloc2) a further sixth of the autoencoder's.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
jemalloc=$(ldconfig -p 2>/dev/null | sed -n 's/.*libjemalloc.so.2.* => //p' | head -n 1)
export MALLOC_CONF="${MALLOC_CONF:-thp:always,dirty_decay_ms:-1,muzzy_decay_ms:-1}"
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-outputs/compiled}"

train() {
  local config="$1"
  shift
  LD_PRELOAD="$jemalloc" flashmotion train --config "configs/sprites/$config" --set mesh.data=2 "$@"
}

asked() { [[ " ${arguments[*]} " == *" $1 "* ]]; }
arguments=("$@")

if asked stored; then
  for name in decoder slow_generator stage1_box_resnet stage1_box_controlnet; do
    mkdir -p "runs/sprites/$name"
    cp -rn examples/sprites_stored "runs/sprites/$name/model"
  done
  flashmotion cache --config configs/sprites/cache.py --set num_clips=6000
else
  [ -e checkpoints/sprites ] || flashmotion new --config configs/sprites/model.py checkpoints/sprites
  train autoencoder_images.py
  train autoencoder.py
  train decoder.py
  train tiny_decoder.py
  flashmotion cache --config configs/sprites/cache.py
  train slow_generator.py
  for adapter in resnet controlnet; do
    train "stage1_mask.py:$adapter"
    train "stage1_box.py:$adapter"
  done
fi
train stage2.py
for adapter in resnet controlnet; do
  train "stage3.py:$adapter"
done

python examples/ship_sprites.py runs/sprites/shipped --stored runs/sprites/stored

slow=runs/sprites/slow_generator/model fast=runs/sprites/stage2/model
systems=()
for adapter in resnet controlnet; do
  slow_adapter=runs/sprites/stage1_box_$adapter/model
  systems+=(
    "slow generator, slow $adapter=$adapter:$slow_adapter"
    "fast generator, slow $adapter=$adapter:$fast+$slow_adapter"
    "fast generator, fast $adapter=$adapter:runs/sprites/stage3_$adapter/model"
  )
done
python examples/measure_sprites.py runs/sprites/measured --per-group 16 \
  "first frame held=held:$slow" "autoencoder=autoencoder:$slow" \
  "slow generator=none:$slow" "fast generator=none:$fast" "${systems[@]}"

asked ablations || exit 0
variants=(diffusion_only adversarial_only fixed_scale mean_scale paper_scale vc ss_vc tc_vc)
for adapter in resnet controlnet; do
  systems=("untouched=$adapter:$fast+runs/sprites/stage1_box_$adapter/model")
  for variant in "" "${variants[@]/#/-}"; do
    runs=""
    for seed in 0 1 2; do
      run="runs/sprites/stage3_$adapter$variant-seed$seed"
      train "stage3.py:$adapter$variant" --set "seed=$seed" --set "workdir=$run"
      runs+="${runs:+,}$run/model"
    done
    systems+=("full$variant=$adapter:$runs")
  done
  python examples/measure_sprites.py "runs/sprites/ablated_$adapter" --per-group 12 \
    --against full "${systems[@]}"
done
