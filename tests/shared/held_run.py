"""A process that holds a made run as a trainer would, until a stop file ends it: ROOT EPOCHS LINGER.

It says "ready" when it is there, and after the stop file it goes on for LINGER seconds.
"""

import sys
import time
from pathlib import Path

from runs import MadeRun, watched_item


def main(root: str, epochs: str, linger: str) -> None:
    run = MadeRun(Path(root), [watched_item("a")], epochs=2 * int(epochs)).train(int(epochs))
    (run.root / "log.txt").write_text("epoch 1\nepoch 2\n")
    print("ready", flush=True)
    while not run.progress.stop:
        time.sleep(0.02)
    time.sleep(float(linger))
    run.end("stopped", reason=run.progress.reason)


if __name__ == "__main__":
    main(*sys.argv[1:])
