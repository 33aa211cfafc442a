#!/usr/bin/env python3
"""Kills a grid at random moments, lets several processes race for another, and says what was lost.

    cargo build --release
    python3 scripts/check_resume.py --harness target/release/harness

1. A grid of three cells (BRECQ with both phases, MetaAug, PD-Quant) is run undisturbed, then again and again, killed with SIGKILL at random moments until
   at least --kills of them, each time going on with the same command. Predictions and losses must be those of the undisturbed run. What a kill costs is what
   all attempts took together beyond the undisturbed run. With a small --checkpoint-every it goes on in the middle of units.
2. Four processes run a grid of 200 cells on a few images; some are killed, some stopped for a while. Every cell must be there once, done, and
   none may have been begun by two processes that lived.

Everything lies in a temporary folder; the random moments follow from --seed. Needs Python 3.9 or newer, nothing else.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import tempfile
import time

WEIGHTS = pathlib.Path(__file__).resolve().parent.parent / "assets/mobilenetv2-tiny-fashion-mnist/model.safetensors"

KILLED = """
name = "killed"
[base]
arch = "resnet20"
bits = "W2A2"
calib-images = 128
recipe = { iterations = 80 }
meta = { iterations = 10 }
transform = { base = 4, depth = 2, warmup-iterations = 20 }
[axes]
method = ["brecq", "metaaug"]
[[include]]
method = "pd-quant"
variant = "short"
recipe = { iterations = 80, correction-iterations = 20 }
"""

RACED = """
name = "raced"
[base]
arch = "mobilenetv2-tiny"
bits = "W4A4"
method = "rtn"
calib-images = 16
data = "idx:images"
# Without the card, whose accuracy is that on other images.
weights = "file:weights.safetensors"
[axes]
seed = [{seeds}]
"""


def results(runs):
    """Predictions and losses of each run in a folder of runs."""
    found = {}
    for folder in sorted(path for path in runs.iterdir() if not path.name.startswith(".")):
        traces = json.loads((folder / "trace.json").read_text())
        losses = [{key: trace[key] for key in trace if key != "wall_s"} for trace in traces]
        found[folder.name] = ((folder / "predictions.safetensors").read_bytes(), losses)
    return found


def write_images(folder, images):
    """Four IDX files, as of a tiny Fashion-MNIST."""
    folder.mkdir()
    levels = bytes(at * 31 % 251 for at in range(images * 784))
    for split in ["train", "t10k"]:
        header = struct.pack(">4I", 0x803, images, 28, 28)
        (folder / f"{split}-images-idx3-ubyte").write_bytes(header + levels)
        labels = bytes(image % 10 for image in range(images))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, images) + labels)


class Bench:
    def __init__(self, harness, root, place, name, grid):
        self.harness, self.folder, self.cache = harness, root / place, root / "cache"
        folder = self.folder
        folder.mkdir()
        (folder / "grid.toml").write_text(grid)
        self.runs = folder / "results" / name / "runs"

    def start(self, *arguments, **more):
        environment = dict(os.environ, HARNESS_CACHE=str(self.cache))
        command = [self.harness, "run", "grid.toml", *arguments]
        return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=subprocess.DEVNULL, **more)

    def run(self):
        started = time.monotonic()
        code = self.start("--quiet").wait()
        assert code == 0, f"exit code {code}"
        return time.monotonic() - started


def kills(harness, folder, count, draw, every):
    undisturbed = Bench(harness, folder, "undisturbed", "killed", KILLED)
    undisturbed.run()
    # With what the first run left in the cache, as the attempts.
    undisturbed_s = Bench(harness, folder, "timed", "killed", KILLED).run()
    killed, midway, rounds, spent_s = 0, 0, 0, 0.0
    while killed < count:
        rounds += 1
        bench = Bench(harness, folder, f"killed-{rounds}", "killed", KILLED)
        is_over = False
        while not is_over:
            started = time.monotonic()
            process = bench.start("--quiet", f"--checkpoint-every={every}")
            try:
                process.wait(draw.uniform(0.05, 0.25) * undisturbed_s)
                is_over = True
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                killed += 1
                midway += any((bench.runs / ".partial").glob("*/midway/*"))
            spent_s += time.monotonic() - started
        assert results(bench.runs) == results(undisturbed.runs), "other predictions or losses"
        assert not (bench.runs / ".partial").exists()
    lost_s = (spent_s - rounds * undisturbed_s) / killed
    print(f"{killed} kills of {rounds} grids: predictions and losses as undisturbed, bit for bit")
    print(f"{midway} of them in units of which the middle was kept (every {every})")
    print(f"undisturbed {undisturbed_s:.1f} s; {lost_s:.2f} s lost per kill, start of the process included")


def race(harness, folder, cells, draw):
    grid = RACED.replace("{seeds}", ", ".join(str(seed) for seed in range(cells)))
    bench = Bench(harness, folder, "raced", "raced", grid)
    write_images(bench.folder / "images", 200)
    shutil.copy(WEIGHTS, bench.folder / "weights.safetensors")
    said = [open(bench.folder / f"said-{index}", "w+") for index in range(4)]
    processes = [bench.start(stderr=said[index]) for index in range(4)]
    dead = set()
    stored = lambda: len(list(bench.runs.glob("*/record.json")))
    moments = sorted(draw.sample(range(cells // 10, 9 * cells // 10), 4))
    deeds = [(0, signal.SIGKILL), (1, signal.SIGSTOP), (2, signal.SIGKILL), (1, signal.SIGCONT)]
    for moment, (victim, how) in zip(moments, deeds):
        while stored() < moment:
            time.sleep(0.001)
        processes[victim].send_signal(how)
        dead |= {victim} if how == signal.SIGKILL else set()
        print(f"  {how.name} with {stored()} of {cells} cells stored")
    codes = [process.wait() for process in processes]
    living = [index for index in range(4) if index not in dead]
    assert all(codes[index] == 0 for index in living), codes
    records = [json.loads(path.read_text()) for path in bench.runs.glob("*/record.json")]
    assert len(records) == cells and all(record["status"] == "done" for record in records), len(records)
    begun = {}
    for index in living:
        said[index].seek(0)
        for line in said[index]:
            if line.startswith("["):
                begun.setdefault(line.split()[-1], []).append(index)
    twice = {run: by for run, by in begun.items() if len(by) > 1}
    assert not twice, twice
    print(f"{cells} cells raced by 4 processes, {len(dead)} killed and one stopped: each done once")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--harness", required=True, type=lambda path: str(pathlib.Path(path).resolve()))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--checkpoint-every", default="100ms", help="how often the middle of a unit is kept")
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        kills(arguments.harness, pathlib.Path(folder), arguments.kills, draw, arguments.checkpoint_every)
        race(arguments.harness, pathlib.Path(folder), arguments.cells, draw)


if __name__ == "__main__":
    main()
