#!/usr/bin/env python3
"""Exports runs as a project of Trackio and compares what the real `trackio` package reads of it with the records.

    python3 -m venv venv && venv/bin/pip install trackio
    venv/bin/python scripts/check_trackio_export.py --harness target/release/harness

Runs some small cells in two grids; one has a long name, one fails, and an experiment is called by quotes and letters of other alphabets.
Trackio's own tables are compared with those that the harness makes, then every number, time and configuration. Trackio logs a run of its
own to the same project, from another process, runs are exported again, and nothing may be lost. Takes a minute.
"""

import argparse
import datetime
import json
import math
import os
import pathlib
import sqlite3
import subprocess
import sys
import tempfile

VARIANT = "a" * 180
GRIDS = {
    "one": """
name = "one"
[base]
arch = "resnet20"
bits = "W2A2"
calib-images = 32
recipe = { iterations = 3, batch = 8 }
meta = { iterations = 1, batch = 8, outer-batch = 8 }
transform = { base = 2, depth = 1, warmup-iterations = 2 }
[axes]
method = ["rtn", "qdrop", "metaaug"]
""",
    "other": f"""
name = "other"
[base]
arch = "resnet20"
bits = "W4A4"
method = "rtn"
calib-images = 32
[variants.{VARIANT}]
[variants.gone]
weights = "file:no/'such' \\"ü\\".safetensors"
""",
}
EXPERIMENT = "others' \"ü\" 🦀"
# What Trackio's own process does to the project.
LOGGED = """
import trackio
trackio.init(project="quantization", name="somebody's", config={"x": 1})
trackio.log({"loss": 0.5}, step=7)
trackio.finish()
"""


def harness(binary, work, *args, code=0):
    done = subprocess.run([binary, *args], cwd=work, text=True, capture_output=True,
                          env={**os.environ, "HARNESS_CACHE": str(work / "cache")})
    assert done.returncode == code, (args, done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


def is_same(one, other):
    return one == other or (math.isnan(one) and math.isnan(other))


def series(trace):
    """What the trace of a phase says, by what the harness calls it."""
    unit, phase = trace["unit"], trace["phase"]
    yield f"loss/{unit}/{phase}", trace["loss"]
    if trace.get("regulariser"):
        yield f"regulariser/{unit}/{phase}", trace["regulariser"]
    for term in trace.get("terms", []):
        yield f"terms/{unit}/{term['name']}", term["loss"]
        yield f"gradient_norm/{unit}/{term['name']}", term["gradient_norm"]


def check_run(storage, project, folder):
    """Compares one run; how many numbers it has."""
    record, traces = (json.loads((folder / name).read_text()) for name in ("record.json", "trace.json"))
    [there] = [run for run in storage.get_run_records(project) if run["name"] == record["run_id"]]
    logs = storage.get_logs(project, record["run_id"], run_id=there["id"])
    points = {}
    for log in logs:
        at = datetime.datetime.fromisoformat(log["timestamp"]).timestamp()
        started = record["provenance"]["started_unix_s"]
        assert started - 1e-3 <= at <= started + record["cost"]["wall_s"] + 1e-3, (at, started)
        for key, value in log.items():
            if key not in ("timestamp", "step"):
                assert (key, log["step"]) not in points, (key, log["step"])
                points[key, log["step"]] = value
    count = 0
    for trace in traces:
        for key, values in series(trace):
            for step, value in zip(trace["iterations"], values, strict=True):
                assert is_same(points.pop((key, step)), float(value)), (key, step)
                count += 1
    for name in ("test_top1", "calib_top1"):
        if record["metrics"]:
            assert points.pop((f"accuracy/{name}", 0)) == record["metrics"][name]
    assert points.pop(("cost/wall_s", 0)) == record["cost"]["wall_s"]
    assert all(step == 0 and key.split("/")[0] in ("accuracy", "cost") for key, step in points), points
    config = storage.get_run_config(project, record["run_id"], run_id=there["id"])
    assert config["harness.status"] == record["status"] and config["_Group"] == folder.parent.parent.name
    for key, value in record["cell"].items():
        for name, value in value.items() if isinstance(value, dict) else [(None, value)]:
            assert config[key if name is None else f"{key}.{name}"] == value or isinstance(value, dict), (key, name)
    alerts = storage.get_alerts(project, record["run_id"], run_id=there["id"])
    assert [alert["text"] for alert in alerts] == ([record["error"]] if record["error"] else []), alerts
    return count + len(points)


def tables(path):
    """The columns and indices of a database."""
    database = sqlite3.connect(path)
    names = database.execute("SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall()
    columns = {name: sorted(row[1:] for row in database.execute(f"PRAGMA table_info({name})")) for kind, name, _ in names if kind == "table"}
    indices = {name: "".join(sql.replace("IF NOT EXISTS", "").split()) for kind, name, sql in names if kind == "index"}
    version = database.execute("PRAGMA user_version").fetchone()
    database.close()
    return columns, indices, version


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--harness", default="target/release/harness", type=pathlib.Path)
    binary = parser.parse_args().harness.resolve()
    with tempfile.TemporaryDirectory() as temporary:
        work = pathlib.Path(temporary)
        folder = work / "trackio"
        # Trackio reads it while it is imported.
        os.environ["TRACKIO_DIR"] = str(folder)
        import trackio
        from trackio.sqlite_storage import SQLiteStorage as storage

        for name, grid in GRIDS.items():
            (work / f"{name}.toml").write_text(grid)
            harness(binary, work, "run", f"{name}.toml", "--quiet", code=0 if name == "one" else 100)
        (work / "results/other").rename(work / "results" / EXPERIMENT)
        path = folder / "quantization.db"
        print(harness(binary, work, "export", "--trackio", str(path)).strip())
        own = storage.init_db("own")
        assert tables(path) == tables(own), "Trackio's schema is another"
        own.unlink()
        print(f"the tables are those of Trackio {trackio.__version__}")
        assert storage.get_projects() == ["quantization"], storage.get_projects()
        runs = sorted(record.parent for record in work.glob("results/*/runs/*/record.json"))
        assert len(runs) == 5 and len(storage.get_runs("quantization")) == 5

        numbers = sum(check_run(storage, "quantization", run) for run in runs)
        print(f"{len(runs)} runs with {numbers} numbers are the same in Trackio")
        subprocess.run([sys.executable, "-c", LOGGED], check=True, stdout=subprocess.DEVNULL)
        harness(binary, work, "note", "resnet20-w2a2-qdrop", "a 'note' ü\nof two lines")
        said = harness(binary, work, "export", "--trackio", str(path))
        assert "1 runs written" in said and "4 unchanged" in said, said
        print(said.strip())
        assert sum(check_run(storage, "quantization", run) for run in runs) == numbers
        assert [log["loss"] for log in storage.get_logs("quantization", "somebody's")] == [0.5]
        print("what Trackio logged beside them is still there")
        listed = subprocess.run([sys.executable, "-m", "trackio.cli", "list", "runs", "--project", "quantization", "--json"],
                                text=True, capture_output=True, check=True).stdout
        assert all(run.name in listed for run in runs), listed
        print("`trackio list runs` lists them")


if __name__ == "__main__":
    main()
