"""Launchers: linted, consistent, and run with programs that note how they are called."""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from flashmotion_jax.cli.main import build_parser

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
SCRIPTS = [*sorted(LAUNCH.glob("*.sh")), LAUNCH / "slurm.sbatch"]


def shellcheck(text, *options):
    # Beside the interpreter: an environment that is not activated is not on the path.
    program = Path(sys.executable).with_name("shellcheck")
    checked = subprocess.run([program, *options, "-"], input=text, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_linted_executable_and_say_how_to_use_them(script):
    text = script.read_text()
    shellcheck(text)
    assert script.stat().st_mode & 0o111
    assert "set -euo pipefail" in text
    assert f"launch/{script.name}" in text.split("set -euo")[0]


def test_what_others_publish_is_pinned_and_has_the_least_rights():
    (file,) = (ROOT / ".github" / "workflows").iterdir()
    workflow = yaml.safe_load(file.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    used = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"][:2]]
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", one) for one in used) and used
    bases = re.findall(r"^FROM (.*)$", (LAUNCH / "Dockerfile").read_text(), re.MULTILINE)
    assert all(re.search(r"@sha256:[0-9a-f]{64}$", base) for base in bases) and bases


def test_the_image_gets_only_what_it_needs():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    sent = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines and all((ROOT / name).exists() for name in sent)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"flashmotion_jax", "configs", "converters", project["readme"]} <= sent


def fake(folder, name, body):
    """A program that notes its arguments in `calls`, and then does something."""
    file = folder / name
    file.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >>"{folder}/calls"\n{body}\n')
    file.chmod(0o755)


def launch(script, folder, *arguments, **variables):
    environment = os.environ | variables | {"PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", LAUNCH / script, *arguments],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    calls = folder / "calls"
    return done, calls.read_text().splitlines() if calls.exists() else []


def assert_understood(command):
    """What a launcher hands to `flashmotion` is what that takes."""
    words = command.removeprefix("flashmotion ").split()
    args = build_parser().parse_args(words)
    assert (ROOT / args.config).exists()
    return args


@pytest.mark.parametrize(
    ("status", "attempts"), [(0, 1), (143, 1), (130, 1), (2, 1), (1, 3), (137, 3)]
)
def test_one_machine_tries_again_after_failures_alone(tmp_path, status, attempts):
    fake(tmp_path, "flashmotion", f"exit {status}")
    done, calls = launch("one_machine.sh", tmp_path, "--set", "num_train_steps=5", RESTARTS="2")
    assert done.returncode == status
    assert len(calls) == attempts
    assert assert_understood(calls[0]).set == ["mesh.fsdp=8", "num_train_steps=5"]


def test_one_machine_hands_a_signal_on_and_waits_for_the_run_to_save(tmp_path):
    body = "trap 'sleep 1; echo saved; exit 143' TERM\necho ready\nwhile :; do sleep 0.1; done"
    fake(tmp_path, "flashmotion", body)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["bash", LAUNCH / "one_machine.sh"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "saved\n"
    assert process.returncode == 143


@pytest.mark.parametrize(
    ("status", "restarts", "is_requeued"),
    [(0, 0, False), (143, 0, True), (137, 3, True), (2, 0, False), (143, 20, False)],
)
def test_a_slurm_job_is_requeued_until_it_is_done(tmp_path, status, restarts, is_requeued):
    fake(tmp_path, "srun", f"exit {status}")
    fake(tmp_path, "scontrol", "")
    job = {"SLURM_NTASKS": "16", "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(restarts)}
    done, calls = launch("slurm.sbatch", tmp_path, "--set", "num_train_steps=5", **job)
    assert done.returncode == status
    assert ("scontrol requeue 7" in calls) == is_requeued
    args = assert_understood(calls[0].split("--label ")[1])
    assert (args.distributed, args.set) == ("auto", ["mesh.fsdp=16", "num_train_steps=5"])


def test_a_slurm_job_asks_for_a_task_a_gpu():
    text = (LAUNCH / "slurm.sbatch").read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", text, re.MULTILINE))
    assert options["gres"] == f"gpu:{options['ntasks-per-node']}"
    assert {"requeue", "signal", "open-mode", "time"} <= options.keys()
    assert text.index("#SBATCH") < text.index("set -euo")  # Slurm reads no further


@pytest.mark.parametrize("action", ["create", "setup", "train", "watch", "stop", "delete"])
def test_a_tpu_slice_is_asked_for_what_it_should(tmp_path, action):
    fake(tmp_path, "gcloud", "")
    done, (call, *_) = launch("tpu_pod.sh", tmp_path, action)
    assert done.returncode == 0, done.stderr
    kind = "queued-resources" if action in ("create", "delete") else "tpu-vm ssh"
    assert call.startswith(f"gcloud compute tpus {kind}")
    assert "--project your-project" in call and "--zone" in call


def test_a_tpu_slice_trains_on_all_workers(tmp_path):
    fake(tmp_path, "gcloud", "")
    launch("tpu_pod.sh", tmp_path, "train")
    call = " ".join((tmp_path / "calls").read_text().split())
    command = re.search(r"(flashmotion train .*?) >", call).group(1)
    args = assert_understood(command.replace("~/flashmotion_jax/", ""))
    assert "--worker=all" in call and args.distributed == "auto"


def test_a_tpu_slice_that_was_taken_away_is_asked_for_again(tmp_path):
    """States in turn: taken away, gone, there with nothing running, there and done."""
    body = f"""
    case "$*" in
      *describe*) state=$(head -n 1 "{tmp_path}/states"); sed -i 1d "{tmp_path}/states"
                  [ "$state" != NONE ] && echo "$state" ;;
      *wrote*) if [ "$(wc -l <"{tmp_path}/states")" = 0 ]; then echo done; else echo ended; fi ;;
    esac"""
    (tmp_path / "states").write_text("SUSPENDED\nNONE\nACTIVE\nACTIVE\n")
    fake(tmp_path, "gcloud", body)
    fake(tmp_path, "sleep", "")
    done, calls = launch("tpu_pod.sh", tmp_path, "keep")
    assert done.returncode == 0, done.stderr
    told = [call for call in calls if call.startswith("gcloud") and "describe" not in call]
    deleted, created, asked, installed = told[:4]
    assert "delete" in deleted and "create" in created and "kill -0" in asked
    assert "--worker=all" in installed
    assert "the run is done" in done.stdout


def test_xpk_gets_a_command_that_is_understood(tmp_path):
    fake(tmp_path, "xpk", "")
    _, calls = launch("xpk.sh", tmp_path)
    call = " ".join(" ".join(calls).split())
    command = call[call.index("flashmotion train") :]
    args = assert_understood(command.replace("/opt/flashmotion_jax/", ""))
    assert args.distributed == "auto"


@pytest.mark.parametrize("script", ["tpu_pod.sh", "xpk.sh"])
def test_an_unknown_action_prints_those_there_are(tmp_path, script):
    done, calls = launch(script, tmp_path, "dance")
    assert done.returncode == 2 and "launch/" in done.stderr and not calls


#: Fields of the formats that are used here, from their references (JobSet v1alpha2, SkyPilot).
JOBSET = {"failurePolicy", "replicatedJobs", "network", "successPolicy", "suspend"}
SKYPILOT = {"name", "workdir", "num_nodes", "resources", "envs", "file_mounts", "setup", "run"}


def test_the_jobset_is_one_run_on_a_whole_slice():
    values = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())
    assert (values["apiVersion"], values["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert values["spec"].keys() <= JOBSET
    (workers,) = values["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    machines, chips = job["parallelism"], container["resources"]["limits"]["google.com/tpu"]
    sides = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    assert machines == job["completions"]
    assert machines * chips == math.prod(map(int, sides))
    assert job["backoffLimit"] == 0 and pod["restartPolicy"] == "Never"
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    assert environment["MESH"] == f"mesh.fsdp={machines * chips}"
    assert all(isinstance(value, str) for value in values["metadata"]["annotations"].values())
    script = container["command"][2]
    shellcheck(f'#!/bin/bash\n: "$CONFIG" "$MESH"\n{script}\n', "-e", "SC2154")
    command = script.replace('"', "").replace("/opt/flashmotion_jax/$CONFIG", environment["CONFIG"])
    assert_understood(command.removeprefix("exec ").replace("$MESH", environment["MESH"]))


def test_the_skypilot_task_is_a_process_a_machine():
    values = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    assert values.keys() <= SKYPILOT
    gpus = int(values["resources"]["accelerators"].split(":")[1])
    assert values["envs"]["MESH"] == f"mesh.fsdp={gpus * values['num_nodes']}"
    shellcheck("#!/bin/bash\n" + values["setup"])
    shellcheck("#!/bin/bash\n" + values["run"], "-e", "SC2154")


def test_a_skypilot_node_tells_which_it_is(tmp_path):
    values = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    fake(tmp_path, "flashmotion", "")
    nodes = {
        "SKYPILOT_NODE_RANK": "1",
        "SKYPILOT_NUM_NODES": "2",
        "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
    }
    script = (
        values["run"]
        .replace("~/venv/bin/", f"{tmp_path}/")
        .replace("/mnt/flashmotion", str(tmp_path))
    )
    environment = os.environ | values["envs"] | nodes
    subprocess.run(["bash", "-c", script], env=environment, cwd=ROOT, check=True)
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert assert_understood(call).distributed == "1/2@10.0.0.1:8476"


def test_the_container_installs_extras_that_exist():
    text = (LAUNCH / "Dockerfile").read_text()
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extras in re.findall(r"EXTRAS=([\w,]+)", text):
        assert set(extras.split(",")) <= known["optional-dependencies"].keys()
    instructions = re.findall(r"^([A-Z]+) ", text, re.MULTILINE)
    assert instructions[0] == "FROM" and instructions[-1] == "ENTRYPOINT" and "USER" in instructions


def test_every_launcher_has_its_section_in_the_documentation():
    text = (ROOT / "docs" / "launching.md").read_text()
    for file in LAUNCH.iterdir():
        assert f"launch/{file.name}" in text


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("sbatch") is None, reason="needs Slurm: apt install slurm-wlm")
def test_slurm_runs_the_job_with_two_tasks_for_real(tmp_path):
    script = Path(__file__).with_name("slurm_on_loopback.sh")
    done = subprocess.run(["bash", script, tmp_path], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
