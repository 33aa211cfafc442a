#!/usr/bin/env python3
"""Reads the folder that `harness export --hub` writes with huggingface_hub, safetensors' format and onnx.

    python3 -m venv venv && venv/bin/pip install huggingface_hub onnx
    venv/bin/python scripts/check_hub_folder.py --harness target/release/harness --results results RUN

The card's metadata must be what huggingface_hub makes of it again, its accuracy the record's; config.json's SHA-256 that of the weights.
"""

import argparse
import hashlib
import json
import pathlib
import subprocess
import tempfile

import onnx
from huggingface_hub import ModelCard
from huggingface_hub.utils import validate_repo_id


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--harness", default="target/release/harness")
    parser.add_argument("--results", default="results")
    parser.add_argument("run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary) / "hub"
        subprocess.run([arguments.harness, "export", "--hub", str(folder), arguments.run, "--results", arguments.results], check=True)
        assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.onnx", "model.safetensors"]
        config = json.loads((folder / "config.json").read_text())
        weights = (folder / "model.safetensors").read_bytes()
        assert hashlib.sha256(weights).hexdigest() == config["weights"]["sha256"]
        header = json.loads(weights[8:8 + int.from_bytes(weights[:8], "little")])
        assert any(name.endswith(".weight.levels") for name in header)
        onnx.checker.check_model(str(folder / "model.onnx"), full_check=True)
        # Raises where model-index is not what its schema says.
        card = ModelCard.load(folder / "README.md", ignore_metadata_errors=False)
        [result] = card.data.eval_results
        run = config["run"]
        assert (card.data.model_name, result.dataset_type) == (run["run_id"], run["cell"]["dataset"])
        shown = json.loads(subprocess.run([arguments.harness, "show", "--json", run["run_id"], "--results", arguments.results],
                                          check=True, capture_output=True, text=True).stdout)
        assert (result.metric_type, result.metric_value) == ("accuracy", shown["metrics"]["test_top1"])
        assert card.data.license == "apache-2.0" or run["cell"]["weights"] != "embedded"
        assert card.data.pipeline_tag == "image-classification" and ModelCard(str(card)).data.to_dict() == card.data.to_dict()
        validate_repo_id(f"someone/{run['run_id']}")
        print(f"{run['run_id']}: the card, the weights and the ONNX model are what they say")


if __name__ == "__main__":
    main()
