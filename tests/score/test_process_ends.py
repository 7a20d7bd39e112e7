"""The interpreter ends while a daemon thread loads: the process ends as its main thread says (native/ending.h)."""

import subprocess
import sys
from pathlib import Path

import pytest

from bidml.score import _native

ROOT = Path(__file__).parents[2]
_LOADS_SLOWLY = f"""
import atexit, importlib.util, sys, threading, time
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}, {str(ROOT / "tests" / "native")!r}]

def after_the_end():  # registered before the extension is, so called after its own exit handler
    make()
    ended.set()
    late.join()
    print("after", answers)

atexit.register(after_the_end)
found = importlib.util.spec_from_file_location("bidml.score._native", {_native.__file__!r})  # the one under test
sys.modules[found.name] = importlib.util.module_from_spec(found)
found.loader.exec_module(sys.modules[found.name])
from artifacts import complete_blueprint
from bidml.score import _native

class Slow:
    "Python code that gives the GIL away, again and again, as C++ asks for its attributes."
    def __init__(self, blueprint):
        self.blueprint = blueprint
    def __getattr__(self, name):
        until = time.monotonic() + 0.2
        began.set()
        while time.monotonic() < until:
            pass
        return getattr(self.blueprint, name)

def make(blueprint=complete_blueprint()):
    return _native.NativeScorer(blueprint, [], None, "scalar")

answers, ended, began = [], threading.Event(), threading.Event()
def loads_late():
    ended.wait()
    try:
        make()
    except RuntimeError as error:
        answers.append(str(error))

late = threading.Thread(target=loads_late, daemon=True)
late.start()
threading.Thread(target=make, args=(Slow(complete_blueprint()),), daemon=True).start()
began.wait()
"""


@pytest.fixture(scope="module")
def ended() -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", _LOADS_SLOWLY], capture_output=True, text=True, timeout=120)


def test_the_end_waits_for_a_load_that_has_begun(ended: subprocess.CompletedProcess[str]) -> None:
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "after" in ended.stdout


def test_after_the_end_the_ending_thread_may_load_and_others_get_an_error(
    ended: subprocess.CompletedProcess[str],
) -> None:
    assert "after ['the interpreter ends; nothing is loaded any more']" in ended.stdout


def test_a_child_of_fork_does_not_wait_for_loads_of_its_parent() -> None:
    program = (
        _LOADS_SLOWLY
        + """
atexit.unregister(after_the_end)
import os
child = os.fork()
if child == 0:
    sys.exit(7)
before = time.monotonic()
status = os.waitpid(child, 0)[1]
print(os.waitstatus_to_exitcode(status), time.monotonic() - before < 9.0)
"""
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (found.returncode, found.stdout) == (0, "7 True\n"), found.stderr
