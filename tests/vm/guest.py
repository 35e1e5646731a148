"""What happens inside of the emulated machine, boot by boot; runs there, as root, alone."""

import signal
import subprocess
import sys
import time
from pathlib import Path

TIMEOUT = 10
STATE = Path("/mnt/state")
GRUARD = [sys.executable, "-m", "edge_runtime"]
MODULES = "edge_runtime.commands.run, edge_runtime.detector.detector, tflite_runtime.interpreter"
(BUNDLE,) = Path("/mnt").glob("*.gruard")
KEPT = ["--watchdog", "/dev/watchdog", "--watchdog-timeout", str(TIMEOUT), "--state", str(STATE)]


def say(text: str) -> None:
    print(f"GUEST {text}", flush=True)


def watch(samples: int) -> "subprocess.Popen[str]":
    """Start gruard on a live reader and wait until so many records are out."""
    words = [*GRUARD, "run", str(BUNDLE), "--source", "-", "--deadline", "5", *KEPT]
    reader = subprocess.Popen([sys.executable, "/mnt/reader.py"], stdout=subprocess.PIPE)
    run = subprocess.Popen(words, stdin=reader.stdout, stdout=subprocess.PIPE, text=True)
    assert run.stdout
    for _ in range(samples):
        say(f"record {run.stdout.readline().strip()[:60]}")
    return run


def stop(run: "subprocess.Popen[str]") -> None:
    run.send_signal(signal.SIGTERM)
    run.communicate()
    say(f"stopped with {run.returncode}")


def main() -> None:
    first = not (STATE / "last-run.json").exists()
    boot_status = Path("/sys/class/watchdog/watchdog0/bootstatus").read_text().strip()
    say(f"{'first' if first else 'second'} boot, boot status {boot_status}")
    if first:  # compiles every module once, as an installation does; loading is slow without
        subprocess.run([sys.executable, "-c", f"import {MODULES}"], check=True)
        say("compiled")
    # Longer than the time-out, so that the watchdog is fed at least once.
    run = watch(2 * TIMEOUT)
    if first:
        run.send_signal(signal.SIGSTOP)
        say("supervisor stopped: only the watchdog can help now")
        time.sleep(10 * TIMEOUT)
        say("no reset came")
        return
    stop(run)
    time.sleep(2 * TIMEOUT)  # a watchdog that was not disarmed would end this
    say("alive after a good end")
    stop(watch(1))


main()
