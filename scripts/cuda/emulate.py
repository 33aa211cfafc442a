#!/usr/bin/env python3
"""Runs a command that wants a GPU on a machine without one: every kernel, ours and Candle's, is compiled for the host, and products
and convolutions are computed as cuBLAS and cuDNN would.

    scripts/cuda/toolkit.sh DIR; . DIR/env.sh; cargo build --release --features cudnn
    scripts/cuda/emulate.py DIR target/release/harness run scripts/cuda/check.toml --device cuda:0

DIR is the toolkit's folder. What is launched, on what, in which order and with which arguments is what a GPU would be asked for; memory
is full of NaN until a kernel writes to it; streams do their work in an order drawn by lot, as late as waits allow. What it cannot show: races
between the threads of a kernel, speed.
COUNTS=FILE counts what was asked for, as `launches.py` does.
"""
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
import stand_in  # noqa: E402


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    toolkit, *command = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        stand_in.libraries(folder)
        kernels = stand_in.kernels(folder)
        environment = stand_in.environment(folder, toolkit)
        # Threads that wait for each other while they are on the processor would keep each other off it.
        environment.update(KERNELS=":".join(map(str, kernels)), OMP_WAIT_POLICY="passive")
        sys.exit(subprocess.run(command, env=environment).returncode)


if __name__ == "__main__":
    main()
