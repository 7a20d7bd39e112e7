"""A program: retraining is killed (SIGKILL) again and again, each time later, until one run comes through.

    kill_retraining.py CONFIG WINDOW OUT KILLS SEED

Prints JSON: kills that struck, the artifact's sha256, the generation, stages used again by the last run.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path

from training.config import load_retrain_config
from training.retrain import Outcome, retrain
from training.window import Window


def run(config: str, window: str, out: str) -> Outcome:
    return retrain(load_retrain_config(config), Window.parse(window), out, announce=lambda _: nullcontext())


def main(config: str, window: str, out: str, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    struck = 0
    reached: set[str] = set()
    for i in range(kills):
        child = os.fork()  # before any thread of a fit exists
        if child == 0:
            run(config, window, out)
            os._exit(0)
        time.sleep(rng.expovariate(1.0) * 2.0 * (i + 1) / (kills + 1))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        struck += os.WIFSIGNALED(status)
        try:
            reached.add(json.loads((Path(out) / "status.json").read_text())["stage"])
        except FileNotFoundError:
            reached.add("nothing")
    outcome = run(config, window, out)
    print(
        json.dumps(
            {
                "struck": struck,
                "sha256": outcome.sha256,
                "generation": outcome.generation,
                "again": [name for name, was_there in outcome.stages if was_there],
                "reached": sorted(reached),
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5]))
