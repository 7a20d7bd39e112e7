"""`python -m robust [--ci | --long] [--only NAME ...] [--list]`: every attack, then its twins; exit code 1 if one errs.

Each attack runs in its own process, so that a crash, a sanitizer's report or a hang is a result. An attack on the real
runtime must find nothing; on a twin, which is broken on purpose, it must find something. What a build or an attack
needs and this machine lacks ends the run with the reason, and not as a success.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from robust import accepted_files, builds
from robust import outcome as outcome_module
from robust.builds import Build
from robust.faults import number_of
from robust.outcome import WHOLE, Effort, Outcome, Share
from robust.table import ATTACKS, Attack

_STARTED, _MARK = "robust-started", "robust-outcome "
_COULD_NOT_TRY = 77  # an exit code
_RACE = "WARNING: ThreadSanitizer"
PYTHON = "python: "  # a fault that is a patch, one of the attack's TWINS; the others are those of faults.py
_TIMEOUT_S = {Effort.SHORT: 600, Effort.CI: 900, Effort.QUICK: 1_800, Effort.LONG: 12 * 3600}


@dataclass(frozen=True)
class Run:
    """One process: an attack, or a share of it, on a build, maybe with a fault."""

    attack: Attack
    build: Build
    effort: Effort
    fault: str = ""
    share: Share = WHOLE
    minutes: float = 0.0  # after which it ends with what it has tried; 0: when it is done

    @property
    def name(self) -> str:
        share = f" {self.share.index + 1}/{self.share.of}" if self.share.of > 1 else ""
        return f"{self.attack.name}{share}, {self.build.name}" + (f": {self.fault}" if self.fault else "")

    def command(self, seed: int) -> list[str]:
        return [
            *(sys.executable, "-S", "-X", "faulthandler", "-m", "robust"),
            *("--run", self.attack.module, "--effort", self.effort, "--fault", self.fault),
            *("--share", f"{self.share.index}/{self.share.of}", "--seed", str(seed)),
            *("--minutes", str(self.minutes)),
        ]

    def again(self, seed: int) -> str:
        """The command that makes the attack once more."""
        effort = f" --{self.effort}" if self.effort in (Effort.CI, Effort.LONG) else ""
        return f'python -m robust{effort} --seed {seed} --only "{self.attack.name}"'

    def outcome(self, seed: int) -> Outcome:
        """What the process reports. Dying is a finding; not beginning is an error."""
        environment = self.build.process_environment(self.attack.preload)
        if self.fault and not self.fault.startswith(PYTHON):
            environment["BIDML_FAULT"] = str(number_of(self.fault))
        found = Outcome()
        try:
            process = subprocess.run(
                [*self.build.launcher(), *self.command(seed)],
                env=environment,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT_S[self.effort],
                cwd=self.build.home,  # the root would bring its own package
            )
        except subprocess.TimeoutExpired:
            found.broke(f"it did not end within {_TIMEOUT_S[self.effort]} s")
            return found
        if _STARTED not in process.stdout or process.returncode == _COULD_NOT_TRY:
            raise RuntimeError(f"{self.name} could not be tried: {process.stderr[-2_000:]}")
        for line in process.stdout.splitlines():
            if line.startswith(_MARK):
                found = Outcome(**json.loads(line.removeprefix(_MARK)))
        if _RACE in process.stderr:
            found.broke(_last_words(process.stderr))
        elif process.returncode != 0:
            found.broke(f"exit code {process.returncode}: {_last_words(process.stderr)}")
        elif not found.trials and not self.fault:
            found.broke("it tried nothing")
        return found


def _last_words(text: str) -> str:
    lines = text.splitlines()
    marks = ("ERROR: ", "runtime error", "WARNING: Thr", "FATAL: ")
    told = [i for i, line in enumerate(lines) if any(mark in line for mark in marks)]
    start = told[0] if told else max(len(lines) - 12, 0)
    return "\n".join(lines[start : start + 12])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m robust")
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--ci", action="store_const", dest="effort", const=Effort.CI, help="a smaller share")
    effort.add_argument("--long", action="store_const", dest="effort", const=Effort.LONG, help="hours")
    parser.add_argument("--only", nargs="*", default=[], help="names of attacks")
    parser.add_argument("--list", action="store_true", help="the attacks, their builds and twins")
    parser.add_argument(
        "--builds", nargs="*", default=[], choices=sorted(builds.BUILDS), help="only on these"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--twins", action="store_true", help="only the broken twins")
    which.add_argument("--no-twins", action="store_true", help="only the runtime as it is")
    parser.add_argument("--table", type=Path, help="write the results to a file, in Markdown")
    parser.add_argument("--seed", type=int, default=0, help="default: the day in the long lane, else 1")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument(
        "--minutes", type=float, default=0.0, help="each attack ends after as many with what it has tried"
    )
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--effort", type=Effort, help=argparse.SUPPRESS)
    parser.add_argument("--fault", default="", help=argparse.SUPPRESS)
    parser.add_argument("--share", default="0/1", help=argparse.SUPPRESS)
    parser.set_defaults(effort=Effort.QUICK)
    options = parser.parse_args()
    if options.run:
        share = Share(*map(int, options.share.split("/")))
        return _attack_here(options.run, options.effort, options.fault, share, options.seed, options.minutes)
    seed = options.seed or (int(time.time()) // 86_400 if options.effort is Effort.LONG else 1)
    chosen = [attack for attack in ATTACKS if not options.only or attack.name in options.only]
    runs = [run for attack in chosen for run in _runs(attack, options.effort)]
    runs = [run for run in runs if not (options.no_twins if run.fault else options.twins)]
    runs = [run for run in runs if not options.builds or run.build.name in options.builds]
    runs = [run if run.fault else replace(run, minutes=options.minutes) for run in runs]
    if not runs or not {attack.name for attack in chosen} >= set(options.only):
        parser.error(f"an attack is one of {[attack.name for attack in ATTACKS]}")
    if options.list:
        print("\n".join(run.name for run in runs))
        return 0
    return _lane(runs, seed, options.jobs, options.table)


def _lane(runs: list[Run], seed: int, jobs: int, table: Path | None) -> int:
    if any(run.attack.module == "robust.hostile_files" for run in runs):
        accepted_files.forget()
    started = time.monotonic()
    needed = {run.build.name: run.build for run in runs}
    builds.make(*needed.values(), jobs=jobs)
    print(
        f"built {', '.join(needed)} in {time.monotonic() - started:.0f} s, {_cpu_s():.0f} s of processor time"
    )
    print(f"{'attack':<72}{'trials':>14}{'cpu s':>7}  result", flush=True)
    with ThreadPoolExecutor(jobs) as pool:
        results = list(pool.map(lambda run: _report(run, seed), runs))
    n_wrong = sum(not as_wanted for as_wanted, _ in results)
    print(
        f"{len(runs)} runs in {time.monotonic() - started:.0f} s, {_cpu_s():.0f} s of processor time; "
        f"{n_wrong} not as they should be",
        flush=True,
    )
    if table is not None:
        table.write_text("".join(row for _, row in results))
    return min(n_wrong, 1)


def _cpu_s(*, of_this_process: bool = False) -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    mine = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime + of_this_process * (mine.ru_utime + mine.ru_stime)


def _runs(attack: Attack, effort: Effort) -> list[Run]:
    shares = [Share(i, attack.n_shares) for i in range(attack.n_shares)]
    found = [Run(attack, attack.build, effort, share=share) for share in shares]
    found += [Run(attack, build, effort.lower) for build in attack.other_builds]
    twins = [Run(attack, build, Effort.SHORT, fault) for build, fault in attack.twins]
    return found + twins


def _report(run: Run, seed: int) -> tuple[bool, str]:
    """Whether the run went as it should, and its row of the table."""
    outcome = run.outcome(seed)
    as_wanted = (outcome.n_found > 0) == bool(run.fault)
    result = ("NOT CAUGHT", "caught")[as_wanted] if run.fault else ("BROKEN", "holds")[as_wanted]
    notes = "; ".join([result, *([] if run.fault else outcome.notes)])
    lines = [f"{run.name:<72}{outcome.trials:>14,}{outcome.cpu_s:>7.0f}  {notes}"]
    if not as_wanted:
        lines += [f"    {what}" for what in outcome.found] + [f"    again: {run.again(seed)}"]
    print("\n".join(lines), flush=True)
    what = run.fault.removeprefix(PYTHON) or "the runtime as it is"
    row = f"| {run.attack.name} | {run.build.name} | {what} | {outcome.trials:,} | {outcome.cpu_s:.0f} | {notes} |\n"
    return as_wanted, row


def _attack_here(module: str, effort: Effort, fault: str, share: Share, seed: int, minutes: float) -> int:
    import numpy as np

    attack = importlib.import_module(module)
    if fault.startswith(PYTHON):
        attack.TWINS[fault]()
    if fault:
        outcome_module.WHEN_BROKEN = _end_with
    else:
        outcome_module.KEPT = builds.HOME / "found" / f"{module}-{seed}-{share.index}"
    print(_STARTED, flush=True)
    if minutes:
        _end_after(minutes)
    rng = np.random.default_rng([seed, share.index])
    parts = (share,) if share.of > 1 else ()
    try:
        outcome = attack.attack(effort, rng, *parts)
    except builds.CompilationError as error:
        print(error, file=sys.stderr)
        return _COULD_NOT_TRY
    if fault:
        _end_with(outcome)
    _report_from_here(outcome)
    return 0


def _end_after(minutes: float) -> None:
    """Report what has been tried by then, and end, with all processes that the attack has started."""
    os.setsid()

    def end(*_: object) -> None:
        outcome = outcome_module.LATEST or Outcome()
        outcome.note(f"ended after {minutes:g} minutes")
        _report_from_here(outcome)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
        os._exit(0)

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, 60.0 * minutes)


def _report_from_here(outcome: Outcome) -> None:
    outcome.cpu_s = _cpu_s(of_this_process=True)
    outcome.notes += [f"{n:,} {what}" for what, n in outcome.counts.items()]
    report = {key: getattr(outcome, key) for key in ("trials", "n_found", "found", "notes", "cpu_s")}
    print(_MARK + json.dumps(report), flush=True)


def _end_with(outcome: Outcome) -> NoReturn:
    """A broken runtime is caught by its first finding, and need not end well."""
    _report_from_here(outcome)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
