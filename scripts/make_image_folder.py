#!/usr/bin/env python3
"""Writes a folder of generated JPEGs laid out like ImageNet, to try out a grid where ImageNet is not at hand.

    pip install numpy pillow
    scripts/make_image_folder.py FOLDER [--classes 1000] [--train 1] [--val 1]
    harness run experiments/table1.toml --smoke --set weights=made-up --set data=folder:FOLDER

`train/<class>/` and `val/<class>/` get that many images each, of sides between 96 and 320 pixels: noise of 6 x 6 colours,
enlarged. The same arguments write the same files.
"""
import argparse
import pathlib

import numpy as np
from PIL import Image


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--train", type=int, default=1)
    parser.add_argument("--val", type=int, default=1)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    for split, count in [("train", arguments.train), ("val", arguments.val)]:
        for label in range(arguments.classes):
            folder = arguments.folder / split / f"n{label:08}"
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                noise = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
                width, height = (int(side) for side in rng.integers(96, 321, 2))
                image = noise.resize((width, height), Image.Resampling.BICUBIC)
                image.save(folder / f"{split}_{label:08}_{index}.JPEG", quality=90)


if __name__ == "__main__":
    main()
