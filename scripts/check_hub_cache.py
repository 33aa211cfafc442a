#!/usr/bin/env python3
"""Checks that the harness and Python's huggingface_hub use each other's cache.

Both download from the Hub of tests/it/hub/server.rs into caches of their own; then each must find, without a network, what the
other stored, and the two caches must be laid out alike.

    pip install huggingface_hub
    cargo build --release && python3 scripts/check_hub_cache.py [target/release/harness]

Prints what it compared; exit code 1 at the first difference.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HARNESS = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "target/release/harness").resolve()
REPO, FILES = "someone/resnet20", ["config.json", "model.safetensors"]
GRID = f"""
name = "cache"
[base]
arch = "resnet20"
weights = "hub:{REPO}/model.safetensors"
bits = "W8A8"
method = "rtn"
"""
# What runs with the real package, in a process of its own: it reads the variables when it is imported.
PYTHON = """
import json, sys
import huggingface_hub
from huggingface_hub import hf_hub_download, scan_cache_dir
local_only, repo, files = json.loads(sys.argv[1])
paths = [hf_hub_download(repo, file, local_files_only=local_only) for file in files]
scan = scan_cache_dir()
assert not scan.warnings, scan.warnings
[found] = scan.repos
assert found.repo_id == repo and sorted(found.refs) == ["main"], found
print(json.dumps([huggingface_hub.__version__, paths]))
"""


@contextlib.contextmanager
def server(folder):
    """The address of the tests' Hub."""
    address = folder / "address"
    command = ["cargo", "test", "--release", "--package", "metaaug", "--test", "it", "--", "--ignored", "--exact", "hub::serve"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=os.environ | {"HUB_ADDRESS_FILE": str(address)}
    )
    try:
        while not address.exists() or not address.read_text():
            if process.poll() is not None:
                sys.exit("the tests' Hub does not start")
            time.sleep(0.1)
        yield address.read_text()
    finally:
        process.stdin.close()
        process.wait()


def run(command, home, endpoint, offline, cwd):
    variables = {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "1" if offline else "0"}
    dropped = {"HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH"}
    kept = {name: value for name, value in os.environ.items() if name not in dropped and not name.lower().endswith("_proxy")}
    done = subprocess.run(command, cwd=cwd, env=kept | variables, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command[:2]))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def with_harness(home, endpoint, offline, folder):
    return run([HARNESS, "fetch", "grid.toml"], home, endpoint, offline, folder).splitlines()[:-1]


def with_python(home, endpoint, offline, folder):
    output = run([sys.executable, "-c", PYTHON, json.dumps([offline, REPO, FILES])], home, endpoint, offline, folder)
    return json.loads(output)


def layout(home):
    """Every file and link of the cache, with what it holds or points at; locks are of no consequence."""
    cache = home / "hub"
    found = {}
    for path in sorted(cache.rglob("*")):
        name = path.relative_to(cache)
        if path.is_symlink():
            found[str(name)] = f"-> {os.readlink(path)}"
        elif path.is_file() and ".locks" not in name.parts and name.name != "CACHEDIR.TAG":
            found[str(name)] = f"{path.stat().st_size} bytes" if "blobs" in name.parts else path.read_text()
    return found


def main():
    with tempfile.TemporaryDirectory() as name, server(Path(name)) as endpoint:
        folder = Path(name)
        (folder / "grid.toml").write_text(GRID)
        by_harness, by_python = folder / "harness", folder / "python"

        fetched = with_harness(by_harness, endpoint, False, folder)
        version, _ = with_python(by_python, endpoint, False, folder)
        print(f"huggingface_hub {version}, {HARNESS.name} from {HARNESS.parent}")
        print("\n".join(f"  {line}" for line in fetched))

        nowhere = "http://127.0.0.1:9"
        _, paths = with_python(by_harness, nowhere, True, folder)
        print(f"ok: without a network, huggingface_hub finds what the harness stored: {len(paths)} files")
        if with_harness(by_python, nowhere, True, folder) != fetched:
            sys.exit("the harness finds something else in the cache of huggingface_hub")
        print("ok: without a network, the harness finds what huggingface_hub stored, with the same SHA-256")

        ours, theirs = layout(by_harness), layout(by_python)
        if ours != theirs:
            sys.exit(f"the caches differ:\n  harness {ours}\n  python  {theirs}")
        print("ok: the two caches are alike:")
        for path, content in ours.items():
            print(f"  {path} {content}")

        with_python(by_harness, endpoint, False, folder)
        with_harness(by_python, endpoint, False, folder)
        if (layout(by_harness), layout(by_python)) != (ours, theirs):
            sys.exit("a second program on the same cache changes it")
        print("ok: with a network, neither changes the other's cache")


if __name__ == "__main__":
    main()
