#!/usr/bin/env bash
# The first half of the small model on one data-center GPU, within about eight minutes: autoencoder,
# crisp and tiny decoder, cache, SlowGenerator, and SlowAdapter. The configurations are those of
# sprites.sh, with larger batches of fewer steps. Run it again after an interruption: every step
# resumes.
#
#     pip install -e ".[train,gpu]"
#     examples/sprites_gpu.sh          # writes sprites_gpu.tar.gz, below 64 MB
#     examples/sprites_gpu.sh try      # four steps of two clips each, to try the script on a CPU
#
# The minutes are estimates: no run of it has been measured yet.
set -euo pipefail
cd "$(dirname "$0")/.."
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-outputs/compiled}"

tried="${1:-}"
workers=$(($(nproc) - 2)) dtype=bfloat16
[ "$tried" = try ] && workers=1 dtype=float32
[ "$workers" -ge 1 ] || workers=1

# train CONFIG STEPS BATCH_SIZE ...: a falling learning rate after a warm-up over a twentieth.
train() {
  local config="$1" steps="$2" batch="$3"
  shift 3
  [ "$tried" = try ] && steps=4 batch=2
  local warmup=$((steps / 20))
  flashmotion train --config "configs/sprites/$config" \
    --set "num_train_steps=$steps" --set "batch_size=$batch" \
    --set "stage.optimizer.warmup_updates=$warmup" --set stage.optimizer.constant_updates=0 \
    --set "stage.optimizer.decay_updates=$((steps - warmup))" \
    --set "dtype=$dtype" --set "num_workers=$workers" \
    --set log_every=50 --set save_every=500 --set sample_every=0 "$@"
}

clips=40000
[ "$tried" = try ] && clips=8
[ -e checkpoints/sprites ] || flashmotion new --config configs/sprites/model.py checkpoints/sprites
train autoencoder.py 1500 64 --set stage.autoencoder=checkpoints/sprites   # 96,000 clips, 2.5 min
train decoder.py 300 32                                                    # 9,600 clips, 1 min
flashmotion cache --config configs/sprites/cache.py --set "num_clips=$clips"         # 40 s
train tiny_decoder.py 600 32                                               # 19,200 clips, 30 s
train slow_generator.py 4000 256 --set stage.optimizer.learning_rate=2e-3  # 1 million clips, 2.5 min
train stage1_box.py:resnet 1500 64 --set "stage.start_from="               # 96,000 clips, 1 min

# The last model has crisp decoder, SlowGenerator and SlowAdapter.
tar -chzf sprites_gpu.tar.gz -C runs/sprites stage1_box_resnet/model tiny_decoder/model/tiny_vae
ls -l sprites_gpu.tar.gz
