#!/usr/bin/env python3
"""Exports stored runs with `harness export --mlflow` and reads them back with MLflow's own client.

    python3 -m venv venv && venv/bin/pip install mlflow-skinny
    venv/bin/python scripts/check_mlflow_export.py --harness target/release/harness --results results

Compares status, parameters, metrics with all their steps, and artefacts with what the run folders hold.
"""

import argparse
import json
import math
import os
import pathlib
import re
import subprocess
import tempfile

# MLflow 3.7 and newer ask for this before they read a file store.
os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"

from mlflow.entities import ViewType  # noqa: E402
from mlflow.tracking import MlflowClient  # noqa: E402


def part(name):
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    return name.replace(".", "_") + "_" if set(name) <= {"."} else name


def same(written, value):
    return math.isnan(written) if value is None else written == value


def check_run(client, run, folder, begun_live=False):
    record = json.loads((folder / "record.json").read_text())
    assert run.info.status == {"done": "FINISHED", "failed": "FAILED"}[record["status"]], run.info
    assert run.info.run_name == record["run_id"] == run.data.tags["mlflow.runName"]
    # A run that was resumed keeps the time at which it began first.
    assert begun_live or run.info.start_time == 1000 * record["provenance"]["started_unix_s"]
    assert run.data.params["bits"] == record["cell"]["bits"]
    assert int(run.data.params["seed"]) == record["cell"]["seed"]
    assert run.data.tags["harness.sha256.weights"] == record["hashes"]["weights"]
    for key, value in record["cell"]["recipe"].items():
        written = run.data.params[f"recipe.{key}"]
        assert written == str(value).lower() or float(written) == float(value), (key, written, value)
    for key, value in (record["metrics"] or {}).items():
        assert run.data.metrics[key] == value, (key, run.data.metrics[key], value)
    assert run.data.metrics["wall_s"] == record["cost"]["wall_s"]
    points = 0
    for trace in json.loads((folder / "trace.json").read_text()):
        series = {f"loss/{part(trace['unit'])}/{part(trace['phase'])}": trace["loss"]}
        for term in trace.get("terms", []):
            series[f"terms/{part(trace['unit'])}/{part(term['name'])}"] = term["loss"]
        for key, values in series.items():
            history = sorted(client.get_metric_history(run.info.run_id, key), key=lambda metric: metric.step)
            assert [metric.step for metric in history] == trace["iterations"], key
            assert all(same(metric.value, value) for metric, value in zip(history, values)), key
            points += len(history)
    artefacts = {artefact.path for artefact in client.list_artifacts(run.info.run_id)}
    assert artefacts >= {"record.json", "cell.toml", "trace.json"}, artefacts
    copy = client.download_artifacts(run.info.run_id, "record.json")
    assert json.loads(pathlib.Path(copy).read_text()) == record
    model = folder / "model.safetensors"
    if model.exists():
        assert artefacts >= {"config.json", model.name}, artefacts
        copy = client.download_artifacts(run.info.run_id, model.name)
        assert pathlib.Path(copy).read_bytes() == model.read_bytes()
    return points


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--harness", default="target/release/harness")
    parser.add_argument("--results", default="results", type=pathlib.Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        store = pathlib.Path(temporary) / "a folder"
        for _ in range(2):
            said = subprocess.run([arguments.harness, "export", "--results", arguments.results, "--mlflow", store],
                                  check=True, text=True, capture_output=True).stdout
            print(said, end="")
        client = MlflowClient(tracking_uri=store.as_uri())
        stored = {path.parent for path in arguments.results.glob("*/runs/*/record.json")}
        runs = points = 0
        for experiment in client.search_experiments(view_type=ViewType.ALL):
            found = client.search_runs([experiment.experiment_id], max_results=50000)
            for run in found:
                folder = arguments.results / experiment.name / "runs" / run.data.tags["harness.run_id"]
                stored.remove(folder)
                points += check_run(client, run, folder)
                runs += 1
        assert not stored, f"not exported: {stored}"
        # A search as users make it.
        best = client.search_runs([e.experiment_id for e in client.search_experiments()],
                                  filter_string="params.bits = 'W2A2'", order_by=["metrics.test_top1 DESC"], max_results=1)
        print(f"{runs} runs with {points} points are the same in MLflow; best at W2A2:",
              *(f"{run.info.run_name} {run.data.metrics['test_top1']}" for run in best))


if __name__ == "__main__":
    main()
