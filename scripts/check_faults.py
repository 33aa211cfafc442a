#!/usr/bin/env python3
"""Lets everything go wrong around a grid that a machine can do to it, and reads what the harness says and leaves.

    cargo build --release
    python3 scripts/check_faults.py --harness target/release/harness

A tiny grid is run undisturbed. Then it is run again for each fault, which comes at its beginning or in its middle: a full disk, no inode left, a
file system that is read-only, folders that may not be written, results that are removed, a cache that is damaged, jumps of the clock, signals, a
closed terminal, pipes that nobody reads, a limit on the size of files. Each must end with the documented exit code and a message that says what
happened; no file may be torn; and once the fault is over the same command must end well, with the predictions and losses of the undisturbed run.

`killed at random` and `processes that race` are those of check_resume.py, faults of a GPU those of cuda/faults.py, of a cluster those of
check_slurm.py. What needs root (mounting), a file system that knows immutable folders, or a C compiler (the clock) is skipped, with a line that
says so, where that is missing. Everything lies in a temporary folder. Needs Linux and Python 3.9 or newer, nothing else.
"""

import argparse
import contextlib
import fcntl
import json
import os
import pathlib
import pty
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import traceback

# What is imported from beside this file leaves nothing there.
sys.dont_write_bytecode = True
from check_resume import WEIGHTS, results, write_images

NAME = "faults"
GRID = """
name = "faults"
[base]
arch = "mobilenetv2-tiny"
bits = "W2A4"
calib-images = 32
data = "idx:images"
# Without the card, whose accuracy is that on other images.
weights = "file:weights.safetensors"
recipe = { iterations = 30 }
[axes]
method = ["rtn", "qdrop", "brecq"]
"""
CELLS = 3
# For a run that takes seconds, on a machine that is busy.
TIMEOUT_S = 300
# Somebody without rights, for whom folders can be closed.
NOBODY = 65534

# A clock that is set by SECONDS while a process runs: from the fourth time on that it is asked for.
CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*of_system)(clockid_t, struct timespec *);
    static _Atomic int asked;
    if (!of_system) of_system = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int code = of_system(clock, now);
    if (clock == CLOCK_REALTIME && ++asked > 3) now->tv_sec += atol(getenv("SECONDS"));
    return code;
}
"""


class Skipped(Exception):
    """Why a fault cannot be made here."""


class Bench:
    """A folder with the grid, its images and its weights; results and cache may lie elsewhere."""

    def __init__(self, harness, root, name):
        self.harness, self.folder = harness, root / name
        self.folder.mkdir()
        (self.folder / "grid.toml").write_text(GRID)
        write_images(self.folder / "images", 200)
        shutil.copy(WEIGHTS, self.folder / "weights.safetensors")
        self.results, self.cache = self.folder / "results", self.folder / "cache"
        self.results.mkdir()
        self.said = self.folder / "said.txt"

    @property
    def experiment(self):
        return self.results / NAME

    @property
    def runs(self):
        return self.experiment / "runs"

    def start(self, *arguments, **more):
        environment = dict(os.environ, HARNESS_CACHE=str(self.cache), **more.pop("environment", {}))
        command = [self.harness, "run", "grid.toml", "--results", str(self.results), *arguments]
        with open(self.said, "wb") as said:
            options = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, cwd=self.folder, env=environment)
            return subprocess.Popen(command, **{**options, **more})

    def trained(self):
        """How many units are kept of runs that are not done."""
        return len(list(self.runs.glob(".partial/*/*")))

    def stored(self):
        return len(list(self.runs.glob("*/record.json")))

    def until_trained(self, process, count=3, meanwhile=lambda: None):
        """Waits until a run is in its middle."""
        while self.trained() < count:
            meanwhile()
            assert process.poll() is None, f"ended with {process.returncode} before the fault: {self.text()}"
            time.sleep(0.002)

    def text(self):
        return self.said.read_text(errors="replace")

    def ends(self, process, codes, *said):
        """The process must end with one of `codes` and have said all of `said`."""
        try:
            code = process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"does not end: {self.text()}") from None
        text = self.text()
        assert code in codes, f"ended with {code}, not {codes}: {text}"
        assert "panicked" not in text, text
        for part in said:
            assert part in text, f"does not say {part!r}: {text}"

    def is_whole(self):
        """No file that has its name may be torn, and what is listed is what is there."""
        for path in self.results.rglob("*"):
            hidden = any(part.startswith((".writing-", ".tmp")) for part in path.relative_to(self.results).parts)
            if path.is_file() and not hidden:
                check_file(path)
        for folder in self.runs.glob("*/"):
            assert folder.name.startswith(".") or (folder / "record.json").exists(), f"no record in {folder}"
        listed = subprocess.run(
            [self.harness, "list", "--json", "--results", str(self.results)], cwd=self.folder, text=True, capture_output=True
        )
        assert listed.returncode in (0, 4), listed.stderr
        if listed.returncode == 0:
            listed = json.loads(listed.stdout)
            assert len(listed["runs"]) == self.stored() and not listed["damaged"], listed["damaged"]

    def resumes(self, undisturbed, **more):
        """The same command ends what is left, as if nothing had happened."""
        self.ends(self.start("--quiet", **more), [0])
        self.is_whole()
        assert results(self.runs) == undisturbed, "other predictions or losses"
        assert not (self.runs / ".partial").exists(), "units of runs that are done are left"


def check_file(path):
    """A file of a kind that has an end must have it."""
    content = path.read_bytes()
    if path.suffix == ".json" and path.parent.name != "slurm":
        json.loads(content)
    elif path.suffix == ".jsonl":
        [json.loads(line) for line in content.splitlines()]
    elif path.suffix == ".safetensors":
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        assert len(content) == 8 + length + max(ends, default=0), f"{path} is cut short"
    ends = {".html": b"</html>", ".svg": b"</svg>", ".png": b"IEND\xaeB`\x82", ".parquet": b"PAR1"}
    if path.suffix in ends:
        assert content.rstrip().endswith(ends[path.suffix]), f"{path} is cut short"


@contextlib.contextmanager
def mounted(bench, options):
    """The folder of results as a file system of its own."""
    if os.geteuid() != 0:
        raise Skipped("mounting needs root")
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", bench.results], text=True, capture_output=True)
    if mount.returncode != 0:
        raise Skipped(mount.stderr.strip())
    try:
        yield
    finally:
        subprocess.run(["umount", bench.results], check=True)


def remount(bench, options):
    subprocess.run(["mount", "-o", f"remount,{options}", bench.results], check=True)


def full_disk(bench, undisturbed):
    """However much is left of it when the grid begins."""
    for left_kb in [0, 8, 60, 200, 330, 450]:
        with mounted(bench, "size=2m"):
            ballast = bench.results / "ballast"
            ballast.write_bytes(bytes((2048 - 4 - left_kb) << 10))
            process = bench.start("--quiet")
            process.wait(TIMEOUT_S)
            codes = [96, 100] if bench.stored() < CELLS or left_kb < 400 else [0, 96]
            bench.ends(process, codes, *([] if process.returncode == 0 else ["No space left on device"]))
            bench.is_whole()
            ballast.unlink()
            bench.resumes(undisturbed)


def full_in_the_middle(bench, undisturbed):
    with mounted(bench, "size=2m"):
        process = bench.start("--quiet")
        bench.until_trained(process)
        with contextlib.suppress(OSError), open(bench.results / "ballast", "wb") as ballast:
            while True:
                os.write(ballast.fileno(), bytes(4096))
        bench.ends(process, [96, 100], "No space left on device")
        bench.is_whole()
        (bench.results / "ballast").unlink()
        bench.resumes(undisturbed)


def no_inode(bench, undisturbed):
    for count in [2, 6, 12, 25, 40]:
        with mounted(bench, f"nr_inodes={count}"):
            bench.ends(bench.start("--quiet"), [96, 100], "No space left on device")
            bench.is_whole()
            remount(bench, "nr_inodes=10000")
            bench.resumes(undisturbed)


def read_only(bench, undisturbed):
    with mounted(bench, "size=8m"):
        bench.ends(bench.start("--quiet", "--filter", "method(rtn)"), [0])
        remount(bench, "ro")
        bench.ends(bench.start("--quiet"), [96], "Read-only file system")
        bench.is_whole()
        remount(bench, "rw")
        bench.resumes(undisturbed)


def immutable(bench, undisturbed):
    """Nothing can be made or removed in the folder of runs from the middle on, by root either."""
    process = bench.start("--quiet")
    bench.until_trained(process)
    if shutil.which("chattr") is None or subprocess.run(["chattr", "+i", bench.runs], capture_output=True).returncode != 0:
        process.kill()
        process.wait()
        raise Skipped("this file system, or this user, makes no folder immutable")
    try:
        bench.ends(process, [96, 100], "Operation not permitted")
        bench.is_whole()
    finally:
        subprocess.run(["chattr", "-i", bench.runs], check=True)
    bench.resumes(undisturbed)


def permission(bench, undisturbed):
    """Of somebody who may not write there: from the beginning, and from the middle on."""
    who = {}
    if os.geteuid() == 0:
        who = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        bench.cache.mkdir()
        for path in [bench.results, bench.cache]:
            os.chown(path, NOBODY, NOBODY)
    bench.results.chmod(0o555)
    bench.ends(bench.start("--quiet", **who), [96], "Permission denied")
    assert not list(bench.results.iterdir())
    bench.results.chmod(0o755)
    process = bench.start("--quiet", **who)
    bench.until_trained(process)
    bench.runs.chmod(0o555)
    bench.ends(process, [96, 100], "Permission denied")
    bench.is_whole()
    bench.runs.chmod(0o755)
    bench.resumes(undisturbed, **who)


def results_removed(bench, undisturbed):
    process = bench.start("--quiet")
    bench.until_trained(process)
    shutil.rmtree(bench.results, ignore_errors=True)
    # What was trained of a run is gone, and not the run; those that were stored are missed.
    bench.ends(process, [100], "are not in", "the same command makes them again")
    bench.is_whole()
    bench.resumes(undisturbed)


def cache_damaged(bench, undisturbed):
    """Each entry is cut, altered, or emptied while a grid runs that uses them; and what a killed run has kept of itself."""
    draw = random.Random(0)
    bench.ends(bench.start("--quiet", "--filter", "method(rtn)"), [0])
    process = bench.start("--quiet")
    damaged = 0
    while process.poll() is None:
        for path in bench.cache.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and path.parent.name != "activations":
                    damage(path, draw)
                    damaged += 1
        time.sleep(0.01)
    assert damaged > 0
    bench.ends(process, [0])
    assert results(bench.runs) == undisturbed, "other predictions or losses"
    shutil.rmtree(bench.runs)
    process = bench.start("--quiet")
    bench.until_trained(process, 5)
    process.kill()
    process.wait()
    for path in bench.runs.glob(".partial/*/*"):
        damage(path, draw)
    bench.is_whole()
    bench.resumes(undisturbed)


def damage(path, draw):
    content = bytearray(path.read_bytes())
    kind = draw.randrange(3)
    if kind == 0 and content:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes([content, content[: len(content) // 2], b""][kind])


def clock_set(bench, undisturbed):
    """By a year, to both sides, in the middle of a grid; and files that are from the past or the future when it goes on."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise Skipped("a clock that can be set needs a C compiler, cc")
    source, library = bench.folder / "clock.c", bench.folder / "clock.so"
    source.write_text(CLOCK)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    year_s = 365 * 86400
    for seconds in [year_s, -year_s, -100 * year_s]:
        bench.ends(bench.start("--quiet", environment={"LD_PRELOAD": str(library), "SECONDS": str(seconds)}), [0])
        bench.is_whole()
        assert results(bench.runs) == undisturbed, "other predictions or losses"
        shutil.rmtree(bench.experiment)
    for moment in [0, 2**31, 2**33]:
        process = bench.start("--quiet")
        bench.until_trained(process)
        process.kill()
        process.wait()
        for path in [*bench.results.rglob("*"), *bench.cache.rglob("*")]:
            os.utime(path, (moment, moment))
        bench.resumes(undisturbed)
        shutil.rmtree(bench.experiment)
    bench.resumes(undisturbed)


def stopped_by(number, code, called):
    def fault(bench, undisturbed):
        process = bench.start("--quiet", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL))
        bench.until_trained(process)
        process.send_signal(number)
        bench.ends(process, [code], f"{called}: stopping; a second one stops at once", "the same command goes on from here")
        assert (bench.experiment / "report.html").exists()
        bench.is_whole()
        bench.resumes(undisturbed)

    return fault


def interrupted_twice(bench, undisturbed):
    process = bench.start("--quiet")
    bench.until_trained(process)
    # Until it is over: the second one comes at any moment of what the first one began.
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.001)
    bench.ends(process, [106], "Ctrl-C: stopping; a second one stops at once")
    bench.is_whole()
    bench.resumes(undisturbed)


def killed(bench, undisturbed):
    process = bench.start("--quiet")
    bench.until_trained(process)
    process.kill()
    process.wait()
    bench.is_whole()
    bench.resumes(undisturbed)


def pipes_closed(bench, undisturbed):
    """Nobody reads what it prints, on either side: the work is done, and with its exit code."""
    for streams in [["stdout"], ["stderr"], ["stdout", "stderr"]]:
        reading, writing = os.pipe()
        process = bench.start(**dict.fromkeys(streams, writing))
        os.close(writing)
        os.close(reading)
        bench.ends(process, [0])
        bench.is_whole()
        assert results(bench.runs) == undisturbed, "other predictions or losses"
        shutil.rmtree(bench.experiment)
    bench.resumes(undisturbed)


def terminal_closed(bench, undisturbed):
    """The window goes in which it runs."""
    master, slave = pty.openpty()

    def in_terminal():
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    process = bench.start(stdin=slave, stdout=slave, stderr=slave, preexec_fn=in_terminal)
    os.close(slave)
    os.set_blocking(master, False)
    # Whoever shows a terminal reads what is written there.
    bench.until_trained(process, meanwhile=lambda: drain(master))
    os.close(master)
    # What it says has nobody to reach.
    bench.ends(process, [128 + signal.SIGHUP])
    assert (bench.experiment / "report.html").exists()
    bench.is_whole()
    bench.resumes(undisturbed)


def drain(descriptor):
    with contextlib.suppress(BlockingIOError):
        while os.read(descriptor, 1 << 16):
            pass


def limit_of_files(bench, undisturbed):
    """`ulimit -f`: the first file that is larger. What is said goes to a file as well, and is not."""
    for limit in [3000, 20_000, 50_000]:
        process = bench.start("--quiet", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        bench.ends(process, [96, 100], "File too large")
        bench.is_whole()
        bench.resumes(undisturbed)
        shutil.rmtree(bench.experiment)


FAULTS = {
    "disk full at the beginning": full_disk,
    "disk full in the middle": full_in_the_middle,
    "no inode left": no_inode,
    "read-only file system": read_only,
    "folder immutable in the middle": immutable,
    "no permission": permission,
    "results removed in the middle": results_removed,
    "cache and kept units damaged": cache_damaged,
    "clock set": clock_set,
    "SIGTERM": stopped_by(signal.SIGTERM, 143, "SIGTERM"),
    "SIGINT": stopped_by(signal.SIGINT, 106, "Ctrl-C"),
    "SIGINT twice": interrupted_twice,
    "SIGHUP": stopped_by(signal.SIGHUP, 129, "SIGHUP"),
    "SIGUSR1": stopped_by(signal.SIGUSR1, 138, "SIGUSR1"),
    "SIGKILL": killed,
    "pipes that nobody reads": pipes_closed,
    "terminal closed": terminal_closed,
    "limit on the size of files": limit_of_files,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--harness", required=True, type=lambda path: str(pathlib.Path(path).resolve()))
    parser.add_argument("--only", metavar="TEXT", default="", help="faults whose names contain it")
    arguments = parser.parse_args()
    counts = {"ok": 0, "skipped": 0, "FAILED": 0}
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        # Others than root must get there.
        root.chmod(0o755)
        harness = shutil.copy(arguments.harness, root / "harness")
        first = Bench(harness, root, "undisturbed")
        first.ends(first.start("--quiet"), [0])
        undisturbed = results(first.runs)
        assert len(undisturbed) == CELLS
        for number, (name, fault) in enumerate(FAULTS.items()):
            if arguments.only not in name:
                continue
            began, detail = time.monotonic(), ""
            try:
                fault(Bench(harness, root, f"fault-{number}"), undisturbed)
                how = "ok"
            except Skipped as why:
                how, detail = "skipped", f": {why}"
            except AssertionError as problem:
                line = traceback.extract_tb(problem.__traceback__)[-1]
                how, detail = "FAILED", f": line {line.lineno}, {problem or line.line}"
            counts[how] += 1
            print(f"{how:8}{name}, {time.monotonic() - began:.1f} s{detail}", flush=True)
    print(", ".join(f"{count} {how}" for how, count in counts.items()))
    sys.exit(1 if counts["FAILED"] else 0)


if __name__ == "__main__":
    main()
