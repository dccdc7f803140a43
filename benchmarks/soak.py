"""Whether a long training run keeps its memory.

Claim: 30 minutes of training, with both observers, a checkpoint every 5 seconds and frequent evaluations, stay within 2 % of
the memory that the process has after the first minute.

Command: python benchmarks/soak.py [--minutes N] [--json FILE]

Reading it: resident memory of the training process by minute, as the median and the maximum of one sample per second. Time
counts from the end of the first chunk, after which everything but the evaluation is compiled. The median of minute 2 is
the reference for all later ones. The replay buffer is small enough to be full within the first minute, because memory
that was never written to is not resident. Linux only.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common

MISSION = Path(__file__).resolve().parents[1] / "missions" / "vertical.yaml"
PHASE = "coast"
LARGEST_CHANGE = 0.02
SETTINGS = (
    "observers=[progress, tensorboard]",
    f"phases.{PHASE}.budget.env_steps=1000000000",
    f"phases.{PHASE}.gate=null",
    f"phases.{PHASE}.evaluation={{every_env_steps: 8192, flights: 500}}",
    f"phases.{PHASE}.sac.buffer_size=20000",
    f"phases.{PHASE}.sac.chunk_env_steps=4096",
)


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def by_minute(process: subprocess.Popen[bytes], minutes: float) -> list[list[float]]:
    """Samples of each minute that was begun, printed as they come."""
    samples: list[list[float]] = []
    began = time.monotonic()
    while (passed := time.monotonic() - began) < 60.0 * minutes:
        if process.poll() is not None:
            raise SystemExit(f"the run ended with exit code {process.returncode} after {passed:.0f} s")
        if len(samples) <= passed // 60.0:
            samples.append([])
        samples[-1].append(resident_mb(process.pid))
        if len(samples) > 1 and len(samples[-1]) == 1:
            say(len(samples) - 1, samples[-2])
        time.sleep(1.0)
    say(len(samples), samples[-1])
    return samples


def say(minute: int, samples: list[float]) -> None:
    print(f"minute {minute:3d}: {statistics.median(samples):8.1f} MB, at most {max(samples):8.1f} MB", flush=True)


def main() -> None:
    options = common.parser(__doc__, peer=False)
    options.add_argument("--minutes", type=float, default=30.0, help="length of the run (default: %(default)s)")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", "mission", "train", str(MISSION), "--phase", PHASE, "--baseline", "0"]
        command += ["--checkpoints", str(folder / "ck"), "--log-dir", str(folder / "runs"), "--checkpoint-every", "5"]
        command += [part for text in SETTINGS for part in ("--set", text)]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
            while not list(folder.glob("ck/*/*/metrics.jsonl")) and process.poll() is None:
                time.sleep(0.1)
            samples = by_minute(process, arguments.minutes)
            process.send_signal(signal.SIGTERM)
            code = process.wait(timeout=120)
        saves = [path.name for path in folder.glob("ck/*/*/training/*")]
        if code != 130 or b"is dropped" in (folder / "log").read_bytes() or not saves:
            raise SystemExit(f"exit code {code}, checkpoints {saves}:\n{(folder / 'log').read_text()[-2000:]}")
    medians = [statistics.median(minute) for minute in samples]
    common.write_json(arguments.json, {"median_mb_by_minute": medians, "peak_mb": max(map(max, samples))})
    if len(medians) < 3:
        print("too short to tell whether memory is flat: give at least 3 minutes")
        return
    change = max(abs(median / medians[1] - 1.0) for median in medians[2:])
    flat = change <= LARGEST_CHANGE
    print(
        f"memory {'is' if flat else 'is NOT'} flat within {100 * LARGEST_CHANGE:.0f} % after the first minute: ", end=""
    )
    print(f"largest change {100 * change:.2f} %")
    if not flat:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
