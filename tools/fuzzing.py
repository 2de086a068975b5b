"""What the fuzzers of `tools` share: runs of atheris, limits of time and memory, and the result."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import mkdtemp

import atheris

from flashmotion_jax.runtime.errors import UserError

MOST_SECONDS, MOST_BYTES = 5.0, 500_000_000


class Fuzzer:
    """Runs inputs of one target, and keeps one input of each kind of finding.

    A finding is an exception that is no `UserError`, more than 5 s of CPU time, or
    memory that grows by more than 0.5 GB.

    Args:
      target: Name of the target.
      read: Reads an input; is given the data and an empty folder. Only UserError is expected.
      seconds: CPU seconds to run for, which do not count waiting for a busy machine.
      out: Folder of the findings.
      most_characters: Length of a message that is a finding; None for any.
    """

    def __init__(
        self,
        target: str,
        read: Callable[[bytes, Path], object],
        seconds: float,
        out: Path,
        most_characters: int | None = None,
    ):
        self.target, self.read, self.out = target, read, out
        self.started, self.seconds = time.process_time(), seconds
        self.most_characters = most_characters
        self.executions = self.accepted = 0
        self.slowest, self.largest, self.longest = 0.0, 0, 0
        self.found: dict[str, str] = {}
        self.folder = Path(mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))

    def __call__(self, data: bytes) -> None:
        if time.process_time() - self.started > self.seconds:
            self.finish()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        before = peak_bytes(reset=True)
        began = time.process_time()
        problem = self.run(data)
        elapsed, grown = time.process_time() - began, peak_bytes() - before
        self.slowest, self.largest = max(self.slowest, elapsed), max(self.largest, grown)
        if elapsed > MOST_SECONDS:
            problem = problem or "slow"
        if grown > MOST_BYTES:
            problem = problem or "large"
        self.executions += 1
        if problem and problem not in self.found:
            file = self.out / f"{self.target}-{len(self.found)}.bin"
            file.write_bytes(data)
            self.found[problem] = f"{elapsed:.1f} s, {grown / 1e6:.0f} MB, {file}"
            print(f"FOUND {self.target}: {problem}", file=sys.stderr, flush=True)

    def run(self, data: bytes) -> str:
        """Reads an input; returns what is wrong, or ""."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.read(data, self.folder)
            self.accepted += 1
        except UserError as error:
            self.longest = max(self.longest, len(str(error)))
            if self.most_characters and len(str(error)) > self.most_characters:
                frame = traceback.extract_tb(error.__traceback__)[-1]
                return f"long message at {Path(frame.filename).name}:{frame.lineno}"
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # as panics of Rust are
            frame = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
        return ""

    def finish(self) -> None:
        """Prints the result and ends the process, as libFuzzer has no other way to stop."""
        result = {
            "target": self.target,
            "cpu_s": round(time.process_time() - self.started),
            "executions": self.executions,
            "accepted": self.accepted,
            "slowest_s": round(self.slowest, 2),
            "largest_mb": round(self.largest / 1e6),
            "longest_message": self.longest,
            "found": self.found,
        }
        shutil.rmtree(self.folder, ignore_errors=True)
        print(json.dumps(result), flush=True)
        os._exit(0)


def peak_bytes(reset: bool = False) -> int:
    """The largest resident size of this process, or since the last reset (on Linux)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def parse(doc: str | None, targets: Iterable[str]) -> argparse.Namespace:
    """The arguments of a fuzzer, whose folder of findings is created."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("target", choices=tuple(targets))
    parser.add_argument("--seconds", type=float, default=240, help="CPU seconds (240)")
    parser.add_argument("--out", type=Path, default=Path("fuzz"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def fuzz(fuzzer: Fuzzer, seeds: Iterable[bytes]) -> None:
    """Mutates seeds until the fuzzer's time is over."""
    corpus = fuzzer.out / f"corpus-{fuzzer.target}"
    corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    limits = ["-rss_limit_mb=0", "-timeout=120", "-max_len=20000", "-print_final_stats=0"]
    atheris.Setup([sys.argv[0], *limits, str(corpus)], fuzzer)
    atheris.Fuzz()
