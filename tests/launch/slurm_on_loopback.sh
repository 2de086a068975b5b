#!/usr/bin/env bash
# Runs launch/slurm.sbatch for real: Slurm on this machine alone, two tasks on a CPU that train as
# one run, receive a signal to stop, and resume when the job is requeued. Needs root, and Debian's slurm-wlm.
#
#   bash tests/launch/slurm_on_loopback.sh FOLDER
set -euo pipefail

folder=$(realpath "$1")
root=$(realpath "$(dirname "$0")/../..")
node=$(hostname -s)
mkdir -p "$folder"/{state,spool,logs}

port=$((20000 + RANDOM % 20000))
cat >"$folder/slurm.conf" <<END
ClusterName=loopback
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
KillWait=5
ReturnToService=2
JobRequeue=1
NodeName=$node NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=$node Default=YES MaxTime=INFINITE State=UP
END
echo "CgroupAutomount=no" >"$folder/cgroup.conf"
export SLURM_CONF="$folder/slurm.conf"

job=""
pids=()
finish() {
  if [ -n "$job" ]; then
    scontrol update JobId="$job" Requeue=0 2>/dev/null || true
    scancel "$job" 2>/dev/null || true
    for _ in $(seq 60); do
      squeue --noheader -j "$job" 2>/dev/null | grep -q . || break
      sleep 1
    done
  fi
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait
}
trap finish EXIT

(umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
munged --foreground --force --socket="$folder/munge.socket" --key-file="$folder/munge.key" \
  --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" \
  --seed-file="$folder/munged.seed" &
pids+=($!)
sleep 1
slurmctld -D &
pids+=($!)
slurmd -D &
pids+=($!)
for _ in $(seq 60); do
  sinfo --noheader -o %t 2>/dev/null | grep -q idle && break
  sleep 1
done
sinfo

cat >"$folder/flashmotion" <<END
#!/usr/bin/env bash
export JAX_PLATFORMS=cpu PYTHONPATH=$root:$root/tests XLA_FLAGS=--xla_backend_optimization_level=0
exec $(command -v python3) -m flashmotion_jax.cli "\$@"
END
chmod +x "$folder/flashmotion"
cat >"$folder/config.py" <<END
from helpers import run_small


def get_config():
    from pathlib import Path

    folder = Path("$folder")
    return run_small.config(folder, folder / "run", "slow_adapter", "num_train_steps=150", "save_every=20")
END
PYTHONPATH=$root:$root/tests JAX_PLATFORMS=cpu python3 -c \
  "import sys, pathlib; from helpers import run_small; run_small.prepare(pathlib.Path(sys.argv[1]))" "$folder"

job=$(CONFIG="$folder/config.py" FLASHMOTION="$folder/flashmotion" sbatch --parsable \
  --nodes=1 --ntasks-per-node=2 --cpus-per-task=1 --gres=none --time=60 \
  --output="$folder/logs/job.out" "$root/launch/slurm.sbatch")
log="$folder/logs/job.out"

wait_for() { # PATTERN SECONDS
  for _ in $(seq "$2"); do
    if grep -qE "$1" "$log" 2>/dev/null; then return; fi
    sleep 1
  done
  echo "no '$1' after $2 s in:" >&2
  cat "$log" >&2
  squeue >&2
  return 1
}

wait_for "saved step 20" 400
echo "asking one task to stop"
scancel --signal=TERM "$job"
wait_for "stopped after step" 60
wait_for "slurm.sbatch: status 143, requeued" 60
echo "requeued; the job starts again"
for _ in $(seq 30); do
  scontrol update JobId="$job" StartTime=now 2>/dev/null && break
  sleep 1
done
wait_for "resuming from step" 400
wait_for "completed 150 steps" 600
for _ in $(seq 30); do
  squeue --noheader -j "$job" 2>/dev/null | grep -q . || break
  sleep 1
done
scontrol show job "$job" | grep -E "JobState|ExitCode|Restarts" || true
grep -cE "^[01]: " "$log"
echo "the job was stopped, requeued, resumed and done"
