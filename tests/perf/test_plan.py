"""Plans of tiny runs, for the eight simulated CPU devices of the tests."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import jax
import pytest

from flashmotion_jax.cli import main as cli
from flashmotion_jax.config import with_overrides
from flashmotion_jax.perf import plan, plan_report, topology
from flashmotion_jax.perf.programs import OutOfMemory
from flashmotion_jax.runtime.devices import GIB, CompileTarget
from flashmotion_jax.runtime.tables import markdown_table
from helpers import run_small, tiny

DOCS = Path(__file__).parents[2] / "docs"
PEAK = 1e12


def devices(memory):
    """Eight devices with this many bytes of memory."""
    kind = CompileTarget(("cpu",), PEAK, "cpu", memory, 1e11, 1e10, 1e10, 4, "made up")
    return topology.Topology("test:8", kind, jax.devices())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    run_small.prepare(folder)
    return folder


def config(prepared, *overrides):
    options = ["mesh.data=2", "mesh.fsdp=4", "batch_size=8", *overrides]
    return run_small.config(prepared, prepared / "run", "slow_adapter", *options)


@pytest.fixture(scope="module")
def planned(prepared):
    return plan.plan_training(config(prepared), devices(GIB), None, lambda text: None)


def test_a_plan_has_what_its_program_takes(planned):
    (one,) = planned.compiled
    memory = one.memory
    assert not planned.problems and not planned.published
    assert memory.arguments > 0 and memory.temporaries > 0
    assert memory.total == memory.peak + memory.idle
    assert one.program.flops / 8 <= one.counts.flops * 1.2
    assert one.counts.collectives["all-gather"].payload_bytes > 0
    assert planned.seconds == max(dataclasses.asdict(one.seconds).values())
    assert one.seconds.compute >= one.program.flops / 8 / PEAK


def test_a_plan_as_text_json_and_row(planned):
    text = "\n".join(plan_report.to_lines(planned))
    assert "mesh data=2 x fsdp=4 x context=1, 8 videos" in text
    assert "all-gather" in text and "fits; a training step or video takes at least" in text
    values = json.loads(json.dumps(plan_report.to_json(planned, "flashmotion plan ...")))
    assert values["fits"] and values["programs"][0]["memory"]["total"] > 0
    row = plan_report.to_row("tiny", values)
    assert len(row) == len(plan_report.HEADER)
    assert all(row)


def test_runs_that_do_not_fit_give_the_reason(planned):
    small = dataclasses.replace(planned, topology=devices(1000))
    (problem,) = small.problems
    assert re.fullmatch(r"adapter update needs [\d.]+ of 0\.0 GiB", problem)
    assert "does not fit: adapter update" in "\n".join(plan_report.to_lines(small))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([], [["mesh.data=1", "mesh.fsdp=8"]]),
        (["remat=dots"], [["remat=full"], ["remat=full", "mesh.data=1", "mesh.fsdp=8"]]),
        (
            ["batch_size=16"],
            [
                ["stage.optimizer.accumulate=2"],
                ["stage.optimizer.accumulate=2", "mesh.data=1", "mesh.fsdp=8"],
            ],
        ),
    ],
)
def test_what_is_tried_takes_less_memory_and_the_same_devices(prepared, changes, expected):
    run = config(prepared, "remat=full", *changes)
    tried = list(plan._changes(run))
    assert [assignments for assignments, _ in tried] == expected
    for assignments, changed in tried:
        assert changed == with_overrides(run, assignments)
        assert math.prod((changed.mesh.data, changed.mesh.fsdp)) == 8


def test_a_suggestion_is_one_that_was_compiled_and_fits(prepared, monkeypatch):
    planned = []

    def plan_training(run, topology, size, status):
        planned.append(run)
        problems = [] if run.mesh.fsdp == 8 else ["too large"]
        return type("Plan", (), {"problems": problems})()

    monkeypatch.setattr(plan, "plan_training", plan_training)
    run = config(prepared, "remat=dots")
    assignments, _ = plan.suggest(run, devices(GIB), None, lambda text: None)
    assert assignments == ["remat=full", "mesh.data=1", "mesh.fsdp=8"]
    assert len(planned) == 2


def test_devices_that_share_a_video_trade_tokens_for_heads(prepared):
    target = devices(GIB)
    given = (str(prepared / "base"), "resnet", target, None, lambda text: None)
    shared = plan.plan_sampling(*given, devices=2, decoder="tiny")
    assert (shared.mesh["context"], shared.videos, shared.problems) == (2, 4, [])
    assert [one.program.name for one in shared.compiled][-1] == "decode next frames (tiny)"
    (step,) = [one for one in shared.compiled if one.program.name == "denoising step"]
    num_layers = tiny.DIT.num_layers
    assert step.counts.collectives["all-to-all"].runs % (4 * num_layers) == 0
    with pytest.raises(ValueError, match="a divisor of the 8 devices of test:8"):
        plan.plan_sampling(*given, devices=3)


def test_a_mesh_of_fewer_devices_raises(prepared):
    run = config(prepared, "mesh.data=1")
    with pytest.raises(ValueError, match="does not use all 8 devices of test:8; for instance"):
        plan.plan_training(run, devices(GIB), None, lambda text: None)


def test_memory_errors_of_the_tpu_compiler_are_parsed(planned):
    message = "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory "
    message += "space hbm. Used 20.73G of 15.75G hbm. Exceeded hbm capacity by 4.98G."
    failed = OutOfMemory.from_message(planned.compiled[0].program, message)
    assert failed.needed == int(20.73 * GIB)
    assert dataclasses.replace(planned, programs=[failed]).problems == [
        "adapter update needs 20.73 of 15.75 GiB"
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "configs/stage2.py", "--topology", "pdp11:2"], "topology 'pdp11:2'"),
        (["--sample", "--topology", "v5p:2x2x1x"], "topology 'v5p:2x2x1x'"),
    ],
)
def test_wrong_arguments_end_with_status_2(words, message, capsys):
    assert cli.main(["plan", *words]) == 2
    assert message in capsys.readouterr().err


CONFIG = """
from pathlib import Path
from helpers import run_small

def get_config():
    options = ["mesh.data=2", "mesh.fsdp=4", "batch_size=8"]
    return run_small.config(Path("{prepared}"), Path("run"), "slow_adapter", *options)
"""


@pytest.fixture
def command(planned, prepared, monkeypatch, tmp_path):
    """`flashmotion plan` of a run that fits from fsdp=8 on, and the JSON it writes."""
    (tmp_path / "config.py").write_text(CONFIG.format(prepared=prepared))
    monkeypatch.setattr(topology, "prepare_environment", lambda: None)
    monkeypatch.setattr(topology, "open_topology", lambda name: devices(GIB))

    def plan_training(run, topology, size, status):
        fits = run.mesh.fsdp == 8
        return planned if fits else dataclasses.replace(planned, topology=devices(1000))

    monkeypatch.setattr(plan, "plan_training", plan_training)

    def run(*words):
        file = tmp_path / "plan.json"
        words = ["--config", str(tmp_path / "config.py"), "--topology", "test:8", *words]
        status = cli.main(["plan", *words, "--json", str(file)])
        return status, json.loads(file.read_text())

    return run


def test_the_command_fails_and_suggests_what_would_fit(command, capsys):
    status, values = command()
    assert status == 1 and not values["fits"]
    out = capsys.readouterr().out
    assert "does not fit: adapter update needs" in out
    changes = "--set remat=full --set mesh.data=1 --set mesh.fsdp=8"
    assert re.search(rf"this fits, with [\d.]+ GiB: {changes}", out)


def test_the_command_takes_what_fits(command, capsys):
    status, values = command("--set", "mesh.data=1", "--set", "mesh.fsdp=8", "--num-frames", "9")
    assert status == 0 and values["fits"]
    assert values["command"].endswith("--set mesh.data=1 --set mesh.fsdp=8 --num-frames 9")
    assert "it fits; wrote" in capsys.readouterr().out


PLANS = sorted((DOCS / "plans").glob("*.json"))


@pytest.mark.parametrize("file", PLANS, ids=lambda file: file.stem)
def test_committed_plans_are_those_of_the_documentation(file):
    values = json.loads(file.read_text())
    assert values["command"].startswith("flashmotion plan --")
    assert {"jax", "jaxlib"} < values["versions"].keys()
    assert all("memory" in one and not one["unknown_loops"] for one in values["programs"])
    table = markdown_table(plan_report.HEADER, [plan_report.to_row(file.stem, values)])
    assert table.splitlines()[-1] in (DOCS / "planning.md").read_text().splitlines()
