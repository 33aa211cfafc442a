#!/usr/bin/env python3
"""Tracks a grid on a real `mlflow server` with SQLite behind it, and compares what it holds with the records.

    python3 -m venv venv && venv/bin/pip install 'mlflow[auth]'
    venv/bin/python scripts/check_mlflow_server.py --harness target/release/harness

The grid is killed in the middle, stopped with SIGINT, and resumed; a cell is run again while the server is down, and sent by `harness
export --mlflow URL`. A server that asks for a password gets it from the environment. Then the runs are exported as a file store, which
`mlflow migrate-filestore` (3.7 and newer) makes a database of, whose server knows the same runs when they are sent to it. Takes some minutes.
"""

import argparse
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

from check_mlflow_export import check_run
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

# Twelve cells of some seconds, of which one fails.
GRID = """
name = "tracked"
save-model = true
[track]
[base]
arch = "resnet20"
calib-images = 64
recipe = { iterations = 40 }
meta = { iterations = 2, outer-batch = 32 }
transform = { base = 2, depth = 1, warmup-iterations = 4 }
[axes]
bits = ["W4A4", "W2A2"]
method = ["rtn", "brecq", "metaaug"]
[[include]]
bits = "W4A4"
method = "rtn"
weights = "file:gone.safetensors"
"""
MLFLOW = pathlib.Path(sys.executable).parent / "mlflow"
USER, PASSWORD = "admin", "a-password-of-this-test"


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


class Server:
    """`mlflow server` in a folder of its own."""

    def __init__(self, folder, options=(), **variables):
        self.folder, self.options, self.variables = folder, options, variables
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        command = [MLFLOW, "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
                   "--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db",
                   "--artifacts-destination", str(self.folder / "artefacts"), *self.options]
        with open(self.folder / "server.log", "a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder,
                                            env={**os.environ, **self.variables}, start_new_session=True)
        for _ in range(600):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=5):
                return self
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            time.sleep(0.2)
        raise AssertionError("the server does not start")

    def __exit__(self, *_):
        # Its workers too.
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def active(client):
    experiments = [e.experiment_id for e in client.search_experiments() if e.name.startswith("tracked")]
    return client.search_runs(experiments, run_view_type=ViewType.ACTIVE_ONLY, max_results=1000) if experiments else []


def compare(client, results, begun_live):
    """Every stored run is there once, with nothing more and nothing less."""
    stored = {path.parent.name: path.parent for path in results.glob("tracked/runs/*/record.json")}
    runs = active(client)
    assert sorted(run.info.run_name for run in runs) == sorted(stored), (len(runs), len(stored))
    points = sum(check_run(client, run, stored[run.info.run_name], begun_live) for run in runs)
    assert points > 0
    return len(runs), points


class Bench:
    def __init__(self, harness, folder, url, **variables):
        self.harness, self.folder, self.url = harness, folder, url
        cleared = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_TRACKING")}
        self.variables = {**cleared, "MLFLOW_TRACKING_URI": url, "HARNESS_CACHE": str(folder / "cache"), **variables}

    def start(self, *args):
        return subprocess.Popen([self.harness, *args], cwd=self.folder, env=self.variables, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self, *args, code=0):
        process = self.start(*args)
        out, err = process.communicate()
        assert process.returncode == code, (args, process.returncode, out, err)
        return out + err

    def stopped(self, client, how):
        """Runs the grid until the server has more losses than before of a run that goes on, and stops it."""
        def losses():
            running = [run for run in active(client) if run.info.status == "RUNNING"]
            return sum(key.startswith("loss/") for run in running for key in run.data.metrics)

        before = losses()
        process = self.start("run", "grid.toml", "--quiet")
        while process.poll() is None and losses() < before + 3:
            time.sleep(0.3)
        assert process.poll() is None, "the grid ended before it could be stopped"
        process.send_signal(how)
        process.communicate()
        statuses = [run.info.status for run in active(client)]
        print(f"  stopped with {how.name}: the server has {statuses}")
        if how == signal.SIGINT:
            assert statuses.count("KILLED") == 1, statuses
        else:
            # Of a run that ended in the last second, too, a process that is killed can tell nothing.
            assert statuses.count("RUNNING") in (1, 2), statuses


def check_tracking(harness, folder):
    (folder / "grid.toml").write_text(GRID)
    server = Server(folder)
    bench = Bench(harness, folder, server.url)
    with server:
        client = MlflowClient(tracking_uri=server.url)
        bench.stopped(client, signal.SIGKILL)
        bench.stopped(client, signal.SIGINT)
        said = bench.run("run", "grid.toml", code=100)
        print("  resumed:", next(line for line in said.splitlines() if line.startswith("MLflow:")))
        print("  %d runs with %d points are the same on the server" % compare(client, folder / "results", True))
        said = bench.run("export", "grid.toml", "--mlflow", server.url)
        assert "0 runs written" in said, said
        print("  sent again:", said.strip())
    said = bench.run("run", "grid.toml", "--fresh", "--filter", "method(brecq)")
    warnings = [line for line in said.splitlines() if line.startswith("warning")]
    assert len(warnings) == 1 and "does not answer" in warnings[0], said
    print("  with the server down:", warnings[0])
    with server:
        said = bench.run("export", "grid.toml", "--mlflow", server.url)
        assert "2 runs written" in said, said
        print("  and up again:", said.strip())
        print("  %d runs with %d points are the same on the server" % compare(client, folder / "results", True))


def check_password(harness, folder, results):
    config = folder / "auth.ini"
    config.write_text(f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/auth.db\n"
                      f"admin_username = {USER}\nadmin_password = {PASSWORD}\n")
    options = ("--app-name", "basic-auth")
    with Server(folder, options, MLFLOW_AUTH_CONFIG_PATH=str(config), MLFLOW_FLASK_SERVER_SECRET_KEY="of-this-test") as server:
        to_server = ("export", "--results", str(results), "--mlflow", server.url)
        said = Bench(harness, folder, server.url).run(*to_server, code=96)
        assert said.count("\n") == 1 and "set MLFLOW_TRACKING_TOKEN" in said, said
        print(" ", said.strip())
        login = {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": PASSWORD}
        print(" ", Bench(harness, folder, server.url, **login).run(*to_server).strip())
        os.environ.update(login)
        client = MlflowClient(tracking_uri=server.url)
        print("  %d runs with %d points are the same on the server" % compare(client, results, False))
        for name in login:
            del os.environ[name]


def check_migration(harness, folder, results):
    # The server's own.
    store, database = folder / "mlruns", f"sqlite:///{folder}/mlflow.db"
    Bench(harness, folder, "").run("export", "--results", str(results), "--mlflow", str(store))
    said = subprocess.run([MLFLOW, "migrate-filestore", "--source", store, "--target", database],
                          check=True, text=True, capture_output=True, cwd=folder)
    print("  migrated:", " ".join(said.stdout.split())[-200:])
    client = MlflowClient(tracking_uri=database)
    print("  %d runs with %d points are the same in the database" % compare(client, results, False))
    with Server(folder) as server:
        said = Bench(harness, folder, server.url).run("export", "--results", str(results), "--mlflow", server.url)
        assert "0 runs written" in said, said
        print("  sent to its server:", said.strip())
        print("  %d runs with %d points are the same on the server" % compare(MlflowClient(tracking_uri=server.url), results, False))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--harness", default="target/release/harness", type=pathlib.Path)
    harness = parser.parse_args().harness.resolve()
    with tempfile.TemporaryDirectory() as temporary:
        tracking, password, migration = (pathlib.Path(temporary) / name for name in ("tracking", "password", "migration"))
        for folder in (tracking, password, migration):
            folder.mkdir()
        print("a grid that is killed, stopped and resumed:")
        check_tracking(harness, tracking)
        print("a server that asks for a password:")
        check_password(harness, password, tracking / "results")
        print("a file store made a database:")
        check_migration(harness, migration, tracking / "results")


if __name__ == "__main__":
    main()
