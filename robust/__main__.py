"""`python -m robust [--long] [--only NAME ...] [--list]`: every attack, then its twins; exit code 1 if one misbehaves.

Each attack runs in its own process, so that a crash, a sanitizer's report or a hang is a result. An attack on the real
runtime must find nothing; on a twin, which is broken on purpose, it must find something.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from robust import builds
from robust.builds import Build
from robust.faults import number_of
from robust.outcome import Effort, Outcome
from robust.table import ATTACKS, Attack

_STARTED, _MARK = "robust-started", "robust-outcome "
PYTHON = "python: "  # a fault that is a patch, one of the attack's TWINS; the others are those of faults.py
_TIMEOUT_S = {Effort.TWIN: 300, Effort.QUICK: 1_800, Effort.LONG: 6 * 3600}


@dataclass(frozen=True)
class Run:
    """One process: an attack on a build, maybe with a fault."""

    attack: Attack
    build: Build
    effort: Effort
    fault: str = ""

    @property
    def name(self) -> str:
        return f"{self.attack.name}, {self.build.name}" + (f", fault {self.fault}" if self.fault else "")

    def command(self, seed: int) -> list[str]:
        return [
            *(sys.executable, "-S", "-X", "faulthandler", "-m", "robust"),
            *(
                "--run",
                self.attack.module,
                "--effort",
                self.effort,
                "--fault",
                self.fault,
                "--seed",
                str(seed),
            ),
        ]

    def outcome(self, seed: int) -> tuple[Outcome, float]:
        """What the process reports, and its seconds. Dying is a finding."""
        environment = self.build.process_environment()
        if self.fault and not self.fault.startswith(PYTHON):
            environment["BIDML_FAULT"] = str(number_of(self.fault))
        started = time.monotonic()
        try:
            process = subprocess.run(
                self.command(seed),
                env=environment,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT_S[self.effort],
                cwd=self.build.home,  # the root would bring its own package
            )
        except subprocess.TimeoutExpired:
            found = Outcome()
            found.broke(f"it did not end within {_TIMEOUT_S[self.effort]} s")
            return found, time.monotonic() - started
        found = Outcome()
        if _STARTED not in process.stdout:
            raise RuntimeError(f"{self.name} did not begin: {process.stderr[-2_000:]}")
        for line in process.stdout.splitlines():
            if line.startswith(_MARK):
                found = Outcome(**json.loads(line.removeprefix(_MARK)))
        if process.returncode != 0:
            found.broke(f"exit code {process.returncode}: {_last_words(process.stderr)}")
        return found, time.monotonic() - started


def _last_words(text: str) -> str:
    lines = text.splitlines()
    told = [
        i
        for i, line in enumerate(lines)
        if "ERROR: " in line or "runtime error" in line or "WARNING: Thr" in line
    ]
    start = told[0] if told else max(len(lines) - 12, 0)
    return "\n".join(lines[start : start + 12])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m robust")
    parser.add_argument("--long", action="store_true", help="hours instead of minutes")
    parser.add_argument("--only", nargs="*", default=[], help="names of attacks")
    parser.add_argument(
        "--seed", type=int, default=0, help="0: another one each day in the long lane, 1 in CI"
    )
    parser.add_argument("--jobs", type=int, default=2, help="attacks at a time")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--effort", type=Effort, default=Effort.QUICK, help=argparse.SUPPRESS)
    parser.add_argument("--fault", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        return _attack_here(options.run, options.effort, options.fault, options.seed)
    effort = Effort.LONG if options.long else Effort.QUICK
    seed = options.seed or (int(time.time()) // 86_400 if options.long else 1)
    chosen = [attack for attack in ATTACKS if not options.only or attack.name in options.only]
    runs = [run for attack in chosen for run in _runs(attack, effort)]
    if not runs:
        parser.error(f"an attack is one of {[attack.name for attack in ATTACKS]}")
    for name in dict.fromkeys(run.build.name for run in runs):
        started = time.monotonic()
        builds.make(builds.BUILDS[name])
        print(f"built {name} in {time.monotonic() - started:.0f} s", flush=True)
    print(f"{'attack':<58}{'trials':>14}{'s':>7}  result", flush=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        return max(pool.map(lambda run: _report(run, seed), runs))


def _runs(attack: Attack, effort: Effort) -> list[Run]:
    found = [Run(attack, build, effort) for build in attack.builds]
    return found + [Run(attack, build, Effort.TWIN, fault) for build, fault in attack.twins]


def _report(run: Run, seed: int) -> int:
    outcome, seconds = run.outcome(seed)
    as_wanted = (outcome.n_found > 0) == bool(run.fault)
    result = (
        "caught"
        if run.fault and as_wanted
        else "holds"
        if as_wanted
        else "NOT CAUGHT"
        if run.fault
        else "BROKEN"
    )
    notes = "; ".join([result, *([] if run.fault else outcome.notes)])
    lines = [f"{run.name:<58}{outcome.trials:>14,}{seconds:>7.0f}  {notes}"]
    lines += [] if as_wanted else [f"    {what}" for what in outcome.found]
    print("\n".join(lines), flush=True)
    return 0 if as_wanted else 1


def _attack_here(module: str, effort: Effort, fault: str, seed: int) -> int:
    import numpy as np

    attack = importlib.import_module(module)
    if fault.startswith(PYTHON):
        attack.TWINS[fault]()
    print(_STARTED, flush=True)
    outcome = attack.attack(effort, np.random.default_rng(seed))
    report = {key: getattr(outcome, key) for key in ("trials", "n_found", "found", "notes")}
    print(_MARK + json.dumps(report), flush=True)
    if fault:  # a broken runtime need not end well
        os._exit(0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
