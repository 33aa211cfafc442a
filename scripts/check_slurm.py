#!/usr/bin/env python3
"""Runs grids on a real Slurm: one node with four slots on this machine, started for it and ended with it.

    cargo build --release
    python3 scripts/check_slurm.py --harness target/release/harness

1. A grid is run undisturbed, then submitted as a job array. One of its tasks is told that its time is nearly over, the worker of another is killed. The
   first must be requeued, alone, and go on; the second must show as failed; predictions and losses must be those of the undisturbed run, bit for bit.
2. Tasks are cancelled, and what is left is submitted again, which must end as well.
3. With --limits, which takes four minutes more, Slurm itself does it: a task must be requeued before its time is over, and one whose worker hears nothing
   must show as timed out.

Needs Debian's `slurm-wlm` and `munge`, and Python 3.9; --install installs the packages with apt-get where it can, and says so where it cannot, in
which case nothing is checked. Everything lies in a temporary folder.
"""

import argparse
import getpass
import os
import pathlib
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

# What is imported from beside this file leaves nothing there.
sys.dont_write_bytecode = True
from check_resume import WEIGHTS, results, write_images

PROGRAMS = ["munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel"]

GRID = """
name = "NAME"
[base]
arch = "mobilenetv2-tiny"
bits = "W2A2"
calib-images = 64
data = "idx:images"
# Without the card, whose accuracy is that on other images.
weights = "file:weights.safetensors"
recipe = { iterations = ITERATIONS }
[axes]
method = ["brecq", "qdrop"]
seed = [SEEDS]
[slurm]
cpus = 1
time = "MINUTES"
memory = "200M"
stop-before-s = 60
setup = ["export HARNESS_OF_SETUP='set up'", "echo $HARNESS_OF_SETUP"]
options = ["--comment=a check"]
"""

CONFIGURATION = """
ClusterName=check
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# What is requeued begins after so many seconds.
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
MaxArraySize=3
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=2000 State=UNKNOWN
PartitionName=check Nodes=ALL Default=YES MaxTime=60 State=UP
"""


class Slurm:
    """Its daemons, in the foreground, with their files in a folder."""

    def __init__(self, folder):
        self.folder, self.daemons = folder, []
        # A socket's path is short.
        for name in ["munge", "state", "spool"]:
            (folder / name).mkdir()
        os.chmod(folder, 0o755)
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        sockets = [socket.socket() for _ in range(2)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        ports = [listener.getsockname()[1] for listener in sockets]
        for listener in sockets:
            listener.close()
        host = socket.gethostname().split(".")[0]
        values = dict(host=host, ports=ports, user=getpass.getuser(), folder=folder)
        (folder / "slurm.conf").write_text(CONFIGURATION.format(**values))
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
        names = {"key-file": key, "socket": folder / "munge/socket", "pid-file": folder / "munge.pid", "seed-file": folder / "munge.seed"}
        self.start("munged", "--foreground", "--force", "--num-threads=1", *(f"--{name}={path}" for name, path in names.items()))
        wait_for("munged", lambda: (folder / "munge/socket").exists())
        self.start("slurmctld", "-D", "-c")
        self.start("slurmd", "-D", "-c")
        wait_for("the node", lambda: "idle" in subprocess.run(["sinfo", "-h"], capture_output=True, text=True).stdout, 60)

    def start(self, *command):
        log = open(self.folder / f"{command[0]}.said", "w")
        self.daemons.append(subprocess.Popen(command, stdout=log, stderr=log))

    def stop(self):
        subprocess.run(["scancel", "--user", getpass.getuser()], capture_output=True)
        deadline = time.monotonic() + 20
        while squeue() and time.monotonic() < deadline:
            time.sleep(0.5)
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()


def squeue():
    """State of each task that waits or runs."""
    ended = subprocess.run(["squeue", "-h", "--array", "-o", "%F_%K %T"], capture_output=True, text=True)
    return dict(line.split() for line in ended.stdout.splitlines())


def wait_for(what, holds, seconds=120):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.1)


class Bench:
    """A folder with a grid. Its name has what scripts stumble over."""

    def __init__(self, harness, root, place, seeds, iterations, minutes="5"):
        self.harness, self.folder, self.name = harness, root / f"{place}'s 100%", place
        self.folder.mkdir()
        self.environment = dict(os.environ, HARNESS_CACHE=str(root / "cache"))
        values = {"NAME": place, "SEEDS": ", ".join(map(str, range(seeds))), "ITERATIONS": str(iterations), "MINUTES": minutes}
        write_images(self.folder / "images", 200)
        shutil.copy(WEIGHTS, self.folder / "weights.safetensors")
        (self.folder / "grid.toml").write_text(re.sub("|".join(values), lambda name: values[name.group()], GRID))
        self.runs, self.slurm = self.folder / "results" / place / "runs", self.folder / "results" / place / "slurm"

    def run(self, *arguments, code=0, said=()):
        ended = subprocess.run([self.harness, *arguments], cwd=self.folder, env=self.environment, capture_output=True, text=True)
        text = ended.stdout + ended.stderr
        assert ended.returncode == code, f"{arguments}: exit code {ended.returncode}: {text}"
        for part in said:
            assert part in text, f"{arguments}: {part!r} is missing in: {text}"
        return text

    def submit(self, *arguments):
        said = self.run("submit", "grid.toml", "--slurm", *arguments)
        print("  " + said.splitlines()[0])
        return re.search(r"jobs? ([\d, ]+),", said).group(1).split(", ")

    def log(self, task):
        path = self.slurm / f"{task}.log"
        return path.read_text() if path.exists() else ""

    def worker(self, task):
        """The process id of a task's harness."""
        job, index = task.split("_")
        its = {f"SLURM_ARRAY_JOB_ID={job}".encode(), f"SLURM_ARRAY_TASK_ID={index}".encode()}
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                is_its = its <= set((process / "environ").read_bytes().split(b"\0"))
                if is_its and b"--worker=" in (process / "cmdline").read_bytes():
                    return int(process.name)
            except OSError:
                continue
        return None

    def trained(self):
        """How many units are kept of runs that are not done."""
        return len(list((self.runs / ".partial").glob("*/*")))


def stop_and_kill(harness, folder):
    undisturbed = Bench(harness, folder, "grid", 2, 40)
    started = time.monotonic()
    undisturbed.run("run", "grid.toml", "--quiet")
    expected = results(undisturbed.runs)
    print(f"undisturbed: {len(expected)} cells in {time.monotonic() - started:.0f} s")
    shutil.rmtree(undisturbed.folder / "results")
    bench = undisturbed
    job = bench.submit("--workers", "3")[0]
    tasks = [f"{job}_{index}" for index in range(3)]
    bench.run("submit", "grid.toml", "--slurm", code=2, said=["were submitted before", f"job {job}"])
    wait_for("three tasks at work", lambda: all("[1/" in bench.log(task) for task in tasks))
    bench.run("watch", "grid.toml", "--once", said=["3 tasks: 3 running"])
    wait_for("a trained unit", lambda: bench.trained() >= 3)
    # What Slurm does before the time is over.
    subprocess.run(["scancel", "--signal=USR1", "--batch", tasks[0]], check=True)
    victim = wait_worker(bench, tasks[1])
    os.kill(victim, signal.SIGKILL)
    wait_for("the requeued task", lambda: ", start 2" in bench.log(tasks[0]))
    said = bench.run("watch", "grid.toml", "--every", "1s")
    assert f"{tasks[1]}  failed (exit code 137)" in said, said
    assert "4 cells: 4 done" in said, said
    log = bench.log(tasks[0])
    for part in ["set up", "SIGUSR1: stopping", "interrupted: ", "exit code 138", "requeued", "exit code 0"]:
        assert part in log, (part, log)
    assert all(", start 2" not in bench.log(task) for task in tasks[1:]), "others were requeued"
    assert results(bench.runs) == expected, "other predictions or losses"
    assert (bench.folder / "results/grid/accuracy.md").exists() and not (bench.runs / ".partial").exists()
    bench.run("submit", "grid.toml", "--slurm", code=4, said=["nothing to submit"])
    print("one task stopped and was requeued alone, the worker of another was killed: predictions and losses as undisturbed, bit for bit")


def wait_worker(bench, task):
    found = []
    wait_for(f"the worker of {task}", lambda: found.append(bench.worker(task)) or found[-1])
    return found[-1]


def cancel(harness, folder):
    bench = Bench(harness, folder, "cancelled", 2, 30)
    # More tasks than an array may have.
    jobs = bench.submit()
    assert len(jobs) == 2, jobs
    wait_for("a task at work", lambda: any("[1/" in bench.log(f"{jobs[0]}_{index}") for index in range(3)))
    bench.run("watch", "grid.toml", "--cancel", said=["cancelled "])
    wait_for("their end", lambda: not squeue())
    said = bench.run("watch", "grid.toml", "--once", code=100, said=["cancelled", "--resubmit"])
    print("  " + "\n  ".join(said.splitlines()))
    bench.run("watch", "grid.toml", "--resubmit", said=["submitted "])
    bench.run("watch", "grid.toml", "--every", "1s", said=["4 cells: 4 done"])
    print("cancelled tasks end, and what was left was done when it was submitted again")


def limits(harness, folder):
    # The limit is looked at every half a minute.
    bench = Bench(harness, folder, "limits", 1, 100000, "2")
    job = bench.submit()[0]
    tasks = [f"{job}_{index}" for index in range(2)]
    deaf = wait_worker(bench, tasks[1])
    wait_for("both at work", lambda: all("[1/" in bench.log(task) for task in tasks))
    os.kill(deaf, signal.SIGSTOP)
    wait_for("the requeued task", lambda: ", start 2" in bench.log(tasks[0]), 150)
    assert "exit code 138" in bench.log(tasks[0])
    wait_for("the end of the other", lambda: tasks[1] not in squeue(), 240)
    said = bench.run("watch", "grid.toml", "--once", said=["1 running", f"{tasks[1]}  timeout"])
    print("  " + "\n  ".join(said.splitlines()))
    bench.run("watch", "grid.toml", "--cancel")
    print("Slurm's own limits: one task was requeued before, one that did not listen timed out")


def is_installed(install):
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing and install:
        for command in [["apt-get", "update"], ["apt-get", "install", "--yes", "--no-install-recommends", "slurm-wlm", "munge"]]:
            try:
                subprocess.run(command, capture_output=True, timeout=300)
            except (OSError, subprocess.TimeoutExpired):
                break
        missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        print(f"SKIPPED: no {', '.join(missing)} here (Debian's packages slurm-wlm and munge), and nothing was checked on a real Slurm")
    return not missing


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--harness", required=True, type=lambda path: str(pathlib.Path(path).resolve()))
    parser.add_argument("--install", action="store_true", help="install what is missing; if that fails, it is no failure")
    parser.add_argument("--limits", action="store_true", help="wait for Slurm's own time limits, too")
    parser.add_argument("--keep", action="store_true", help="leave the temporary folder")
    arguments = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if not is_installed(arguments.install):
        sys.exit(0 if arguments.install else 1)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="slurm-"))
    slurm = Slurm(folder)
    try:
        stop_and_kill(arguments.harness, folder)
        cancel(arguments.harness, folder)
        if arguments.limits:
            limits(arguments.harness, folder)
    finally:
        slurm.stop()
        if arguments.keep:
            print(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
