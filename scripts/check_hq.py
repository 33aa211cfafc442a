#!/usr/bin/env python3
"""Runs a grid on a real HyperQueue: a server and a worker of four processors on this machine, started for it and ended with it.

    cargo build --release
    pip install hyperqueue
    python3 scripts/check_hq.py --harness target/release/harness

A grid is run undisturbed, then submitted as a job of three tasks. The worker of one task is killed: it must show as failed, the others go on, and
predictions and losses must be those of the undisturbed run, bit for bit. What is left, if anything is, is submitted again.

PyPI's package has HyperQueue's server, workers and client for Python, but no program `hq`. In its place stands one of this script, which submits the job
file that the harness has written through that client. It can neither cancel, nor ask for the states of tasks, which it reads from their logs: what
`harness watch` makes of the real program's output is tried by `tests/it/slurm.rs` alone. Without the package nothing is checked, and that is said.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import sys
import tempfile
import time

# What is imported from beside this file leaves nothing there.
sys.dont_write_bytecode = True
from check_resume import results
from check_slurm import Bench, wait_for

SERVER = "CHECK_HQ_SERVER"


def stand_in(arguments):
    """What `hq` would do."""
    import tomllib

    from hyperqueue import Client, Job
    from hyperqueue.ffi.protocol import ResourceRequest

    words = [argument for argument in arguments if not argument.startswith("--")]
    assert "--output-mode=json" in arguments, arguments
    client = Client(os.environ[SERVER])
    if words == ["server", "info"]:
        print("{}")
    elif words[:2] == ["job", "submit-file"]:
        definition = tomllib.loads(pathlib.Path(words[2]).read_text())
        array = definition.pop("array")
        assert (array.pop("stdout"), array.pop("stderr")) == ("none", "none")
        first, last = map(int, array.pop("ids").split("-"))
        (request,) = array.pop("request")
        cpus = request["resources"].pop("cpus")
        job = Job(name=definition.pop("name"), max_fails=None, default_workdir=os.getcwd())
        for _ in range(first, last + 1):
            asked = dict(stdout=None, stderr=None, resources=ResourceRequest(cpus=cpus), crash_limit=array["crash_limit"])
            job.program(array["command"], **asked)
        assert not definition and set(array) == {"command", "crash_limit"}, (definition, array)
        print(json.dumps({"id": client.submit(job).id}))
    elif words[:2] == ["job", "info"]:
        print(json.dumps([{"info": {"id": int(id)}, "tasks": tasks(id)} for id in words[2].split(",")]))
    else:
        sys.exit(f"no stand-in for {arguments}")


def tasks(job):
    (logs,) = pathlib.Path().glob("results/*/slurm")
    submission = json.loads((logs / "submission-1.json").read_text())
    (count,) = [array["tasks"] for array in submission["arrays"] if array["job"] == f"hq-{job}"]
    return [{"id": index, "state": state(logs / f"hq-{job}_{index}.log")} for index in range(count)]


def state(log):
    if not log.exists():
        return "waiting"
    code = re.findall(r"^== \S+ exit code (\d+)$", log.read_text(), re.MULTILINE)
    return "running" if not code else "finished" if code[-1] == "0" else "failed"


class OfHq(Bench):
    def submit(self, *arguments):
        said = self.run("submit", "grid.toml", "--hq", *arguments)
        print("  " + said.splitlines()[0])
        return re.search(r"job (hq-\d+),", said).group(1)

    def worker(self, task):
        job, index = task.removeprefix("hq-").split("_")
        its = {f"HQ_JOB_ID={job}".encode(), f"HQ_TASK_ID={index}".encode()}
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                is_its = its <= set((process / "environ").read_bytes().split(b"\0"))
                # Of the shell as well the environment is such.
                if is_its and (process / "cmdline").read_bytes().startswith(self.harness.encode() + b"\0"):
                    return int(process.name)
            except OSError:
                continue
        return None


def check(harness, folder, cluster):
    from hyperqueue import Client

    bench = OfHq(harness, folder, "grid", 2, 40)
    bench.environment.update({SERVER: cluster.cluster.server_dir, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"})
    started = time.monotonic()
    bench.run("run", "grid.toml", "--quiet")
    expected = results(bench.runs)
    print(f"undisturbed: {len(expected)} cells in {time.monotonic() - started:.0f} s")
    shutil.rmtree(bench.folder / "results")
    bench.run("submit", "grid.toml", "--hq", "--print", said=["#!/bin/bash", "# hq job submit-file", "#   [array]"])
    job = bench.submit("--workers", "3")
    names = [f"{job}_{index}" for index in range(3)]
    wait_for("three tasks at work", lambda: all("[1/" in bench.log(name) for name in names))
    wait_for("a trained unit", lambda: bench.trained() >= 3)
    os.kill(bench.worker(names[1]), signal.SIGKILL)
    bench.run("watch", "grid.toml", "--once", said=["4 cells: ", f"job {job}, submitted", "3 tasks: "])
    said = bench.run("watch", "grid.toml", "--every", "1s")
    assert f"{names[1]}  failed (exit code 137)" in said and "4 cells: 4 done" in said, said
    assert "set up" in bench.log(names[0]), bench.log(names[0])
    assert results(bench.runs) == expected, "other predictions or losses"
    # What HyperQueue itself says.
    ended = []
    connection = Client(cluster.cluster.server_dir).connection
    number = int(job.removeprefix("hq-"))
    connection.wait_for_jobs((number,), lambda jobs: ended.append(jobs[number]))
    assert (ended[-1]["finished"], ended[-1]["failed"]) == (2, 1), ended[-1]
    bench.run("submit", "grid.toml", "--hq", code=4, said=["nothing to submit"])
    print("the worker of one of three tasks was killed: predictions and losses as undisturbed, bit for bit")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--harness", required=True, type=lambda path: str(pathlib.Path(path).resolve()))
    parser.add_argument("--keep", action="store_true", help="leave the temporary folder")
    arguments = parser.parse_args()
    try:
        from hyperqueue import LocalCluster
        from hyperqueue.cluster import WorkerConfig
    except ImportError as error:
        print(f"SKIPPED: nothing was checked on a real HyperQueue, since PyPI's package is not here ({error}): pip install hyperqueue")
        return
    folder = pathlib.Path(tempfile.mkdtemp(prefix="hq-"))
    (folder / "bin").mkdir()
    program = folder / "bin/hq"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} {pathlib.Path(__file__).resolve()} --as-hq \"$@\"\n")
    program.chmod(0o755)
    try:
        with LocalCluster(str(folder / "server"), WorkerConfig(cores=4)) as cluster:
            check(arguments.harness, folder, cluster)
    finally:
        if arguments.keep:
            print(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--as-hq"]:
        stand_in(sys.argv[2:])
    else:
        main()
