"""`python -m robust.seeded_faults [NAME ...]`: each fault of faults.py and faults_of_pricing.py against the test-suite.

All native faults are in one build and the environment chooses one, so that a run costs its tests and no compilation; a
fault of Python is made in a copy of the package. The tests named beside a fault come first, and the first test that
fails ends the run; dying and hanging count as noticed. Races are left to the attack "threads". Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from robust.builds import BROKEN, HOME, ROOT, make, path_of
from robust.faults import FAULTS, RACES, Fault, number_of
from robust.faults_of_pricing import FAULTS_OF_PRICING

# Where a fault is looked for, in this order, after the tests that its table names.
_SUITES = ("tests/score", "tests/native", "tests/pricing", "tests/export/test_export.py")
_TIMEOUT_S = 600


@dataclass(frozen=True)
class Verdict:
    """`by`: the test that noticed the fault, or None; `seconds` of testing."""

    fault: Fault
    by: str | None
    seconds: float


def verdict_on(fault: Fault | None) -> Verdict:
    """Run the suites with the fault in force, until one fails; with none, all must pass."""
    started = time.monotonic()
    environment = BROKEN.process_environment()
    # Examples do not shrink: the first that fails is enough.
    environment |= {"HYPOTHESIS_PROFILE": "bidml", "CI": "1", "PYTHONSAFEPATH": "1"}
    home = BROKEN.home
    if fault is not None and fault in FAULTS_OF_PRICING:
        home = _copy_with(fault)
        environment["PYTHONPATH"] = path_of(home / "site")
    elif fault is not None:
        environment["BIDML_FAULT"] = str(number_of(fault.name))
    first = fault.tests.split() if fault is not None else []
    by = None
    for suite in dict.fromkeys([*first, *_SUITES]):
        by = _failure(suite, environment, home)
        if by is not None:
            break
    if fault in FAULTS_OF_PRICING:
        shutil.rmtree(home)
    return Verdict(fault or Fault("none", "", "", ""), by, time.monotonic() - started)


def _copy_with(fault: Fault) -> Path:
    """A folder whose `site` has the package with the edit; raises `ValueError` for an `old` that is not there once."""
    text = (ROOT / "bidml" / fault.file).read_text()
    if text.count(fault.old) != 1:
        raise ValueError(f"{fault.name}: {fault.file} has {text.count(fault.old)} times {fault.old!r}")
    home = HOME / f"seeded-{FAULTS_OF_PRICING.index(fault)}"
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(
        BROKEN.site / "bidml", home / "site" / "bidml", ignore=shutil.ignore_patterns("__pycache__")
    )
    (home / "site" / "bidml" / fault.file).write_text(text.replace(fault.old, fault.new))
    return home


def _failure(suite: str, environment: dict[str, str], home: Path) -> str | None:
    options = (
        "-q -x --no-header --tb=no -p no:cacheprovider -o pythonpath="  # the root would bring its own package
    )
    command = [sys.executable, "-S", "-m", "pytest", *options.split()]
    try:
        found = subprocess.run(
            [*command, "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), str(ROOT / suite)],
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            cwd=home,
        )
    except subprocess.TimeoutExpired:
        return f"{suite} hangs"
    if found.returncode == 0:
        return None
    for line in found.stdout.splitlines():
        if line.startswith(("FAILED ", "ERROR ")):
            return line.split(" ", 1)[1].split(" - ")[0].split("::", 1)[-1]
    return f"{suite}: exit code {found.returncode}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m robust.seeded_faults")
    parser.add_argument("names", nargs="*", help="faults or files; all of them by default")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--no-clean", action="store_true", help="do not first see that all passes without a fault"
    )
    options = parser.parse_args(arguments)
    all_of_them = [fault for fault in (*FAULTS, *FAULTS_OF_PRICING) if fault.tests != RACES]
    wanted = set(options.names)
    chosen = [fault for fault in all_of_them if not wanted or {fault.name, fault.file} & wanted]
    make(BROKEN)
    clean = None if options.no_clean else verdict_on(None).by
    if clean is not None:
        print(f"without a fault {clean} fails: nothing can be said", file=sys.stderr)
        return 1
    print("| fault | in | noticed by |\n|---|---|---|", flush=True)
    verdicts = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for verdict in pool.map(verdict_on, chosen):
            verdicts.append(verdict)
            fault = verdict.fault
            by = f"`{verdict.by}`" if verdict.by else f"**survives**: {fault.survives or 'no test sees it'}"
            print(f"| {fault.name} | `{fault.file}` | {by} |", flush=True)
    n_caught = sum(verdict.by is not None for verdict in verdicts)
    share = n_caught / len(verdicts)
    print(f"\n{n_caught} of {len(verdicts)} noticed: {share:.1%}")
    unexplained = [v.fault.name for v in verdicts if v.by is None and not v.fault.survives]
    return 1 if share < 0.95 or unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
