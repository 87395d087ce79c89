"""Random faults on a cluster of three brokers for a given time, every count checked after each.

``.venv/bin/python -m tests.chaos --minutes 10 --seed 1`` (or ``make chaos``); Java 17 and Maven are needed.
The same seed makes the same events and chooses the same faults; their moments depend on the machine. Exit
code 1 at the first difference, or when something did not come back; the logs are kept then.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
import uuid
from pathlib import Path

from tests.chaos.faults import FAULTS, can_mount, disk_fills, in_turn
from tests.chaos.harness import CLUSTER, Chaos
from tests.kafka_server import KafkaCluster


def main() -> int:
    """Run until the time is over or something is wrong; print what was done and found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="tests.chaos"
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=60.0, help="events per second")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--fault", choices=sorted(FAULTS), action="append", help="only these")
    chosen = parser.parse_args()
    faults = [FAULTS[name] for name in chosen.fault or sorted(FAULTS)]
    if disk_fills in faults and not can_mount():
        print("without disk_fills: this user may not mount a tmpfs")
        faults.remove(disk_fills)
    folder = Path(tempfile.mkdtemp(prefix="stancewatch-chaos-"))
    token = uuid.uuid4().hex[:8]
    names = {"topic_prefix": f"{token}.", "group": f"group-{token}"}
    began = time.monotonic()
    with (
        KafkaCluster(folder / "cluster", properties=CLUSTER) as cluster,
        Chaos(cluster, folder, names, chosen.seed, rate=chosen.rate) as run,
    ):
        for number in range(chosen.workers):
            run.start(f"worker-{number}", ready=False)
        run.wait(lambda: all(each.is_ready() for each in run.live()), "all workers are ready")
        try:
            while time.monotonic() - began < chosen.minutes * 60:
                fault = run.random.choice(faults)
                in_turn(run, [fault])
                passed = time.monotonic() - began
                print(
                    f"{passed:6.0f} s  {len(run.log):7} events  {fault.__name__}: 0 differences", flush=True
                )
        except AssertionError:
            traceback.print_exc()
            print(f"the logs are in {folder}")
            return 1
        finally:
            print(run.result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
