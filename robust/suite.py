"""Tests run again and again in forks of one process that has imported what they need, all but bidml.

`python -S -m robust.suite` reads one question a line, {"tests", "environment", "site", "cpu_s"}, in JSON, and answers
each with {"by", "how", "cpu_s"}: the first test that does not pass, or null; whether it "fails", "dies" or "does not
end"; the processor time of the fork. A fork may use `cpu_s` seconds of processor time, so that a busy machine is no
finding, and twenty minutes of any time.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from typing import Any

import pytest

_IMPORTED = (
    "numpy",
    "scipy.stats",
    "scipy.optimize",
    "pandas",
    "hypothesis.extra.numpy",
    "onnx.checker",
    "onnxruntime",
)
_MOST_SECONDS = 1_200.0
_BROKEN = 99  # an exit code


class _Watch:
    """Leaves the name of the test that runs, or of the first that failed, in an open file."""

    def __init__(self, file: int) -> None:
        self.file = file
        self.failed = False

    def _write(self, text: str) -> None:
        if not self.failed:
            os.ftruncate(self.file, 0)
            os.pwrite(self.file, text.encode(), 0)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._write(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._write(report.nodeid)
            self.failed = True

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._write(report.nodeid)
            self.failed = True


def _test(question: dict[str, Any], file: int) -> int:
    """In the fork: run the tests until one fails."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (question["cpu_s"], question["cpu_s"] + 5))
    os.environ |= question["environment"]
    sys.path[:] = [
        *os.environ["PYTHONPATH"].split(os.pathsep),
        *(entry for entry in sys.path if "lib/python" in entry),
    ]
    sys.argv[:] = ["pytest"]
    return int(pytest.main([*question["options"], *question["tests"]], [_Watch(file)]))


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as notes:
        pid = os.fork()
        if pid == 0:
            code = _BROKEN
            try:
                code = _test(question, notes.fileno())
            except BaseException:
                os.write(notes.fileno(), traceback.format_exc().encode())
            os._exit(code)
        until, ended, status = time.monotonic() + _MOST_SECONDS, 0, 0
        while not ended and time.monotonic() < until:
            ended, status, used = os.wait4(pid, os.WNOHANG)
            time.sleep(0.0 if ended else 0.02)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # with what it started
        if not ended:
            _, _, used = os.wait4(pid, 0)
        test = os.pread(notes.fileno(), 10_000, 0).decode()
    code = os.waitstatus_to_exitcode(status) if ended else 0
    if not ended or code in (-signal.SIGXCPU, -signal.SIGKILL):
        how = "does not end"
    elif code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED):
        how = "fails"
    elif code < 0:
        how = "dies"
    else:
        raise RuntimeError(f"pytest could not run, exit code {code}: {test}")
    by = None if ended and code == 0 else test or "the start of the tests"
    return {"by": by, "how": how, "cpu_s": used.ru_utime + used.ru_stime}


def main() -> int:
    for name in _IMPORTED:
        importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
