#!/usr/bin/env python3
"""Makes tests/golden/statistics.json: what scipy and statsmodels say to the tests of src/report/statistics.rs.

usage: make_statistics_golden.py

Needs numpy, scipy and statsmodels (written with 2.4, 1.17 and 0.15). The same versions give the same bytes.
"""
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

TARGET = Path(__file__).resolve().parent.parent / "tests" / "golden" / "statistics.json"


def mcnemar_cases():
    pairs = [(0, 0), (1, 0), (0, 5), (3, 3), (10, 22), (310, 278), (40, 41), (512, 400), (2600, 2400), (1500, 500), (30000, 29500)]
    cases = []
    for b, c in pairs:
        p = 1.0 if b + c == 0 else float(mcnemar([[100, b], [c, 50]], exact=True).pvalue)
        cases.append({"b": b, "c": c, "p": p})
    return cases


def exact_sign_flip(differences):
    """The same p-value in exact fractions, image by image."""
    distribution = {0: Fraction(1)}
    for d in differences:
        after = {}
        for total, p in distribution.items():
            for value in (total + d, total - d):
                after[value] = after.get(value, 0) + p / 2
        distribution = after
    observed = abs(sum(differences))
    return float(sum(p for total, p in distribution.items() if abs(total) >= observed))


def sign_flip_cases(rng):
    cases = []
    # Few enough images for scipy to go through all signs.
    for differences in ([3, -1, 2, 2, 0, 1, -2], [1, 1, 1, -1, 2, 3, 3, -2, 1, 0, 2], [-4, 2, 1, 1]):
        result = stats.permutation_test(
            (np.array(differences),), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
        )
        p = exact_sign_flip(differences)
        assert abs(result.pvalue - p) < 1e-12, (differences, result.pvalue, p)
        cases.append({"differences": differences, "p": p})
    # More, in exact fractions.
    for seeds, images, shift in ((3, 120, 0.06), (5, 200, 0.0)):
        a = rng.random((seeds, images)) < 0.7 + shift
        b = rng.random((seeds, images)) < 0.7
        differences = (a.sum(0).astype(int) - b.sum(0).astype(int)).tolist()
        cases.append({"differences": differences, "p": exact_sign_flip(differences)})
    return cases


def bootstrap_cases(rng):
    """Intervals of a bootstrap with so many resamples that its own noise is small; `se` is that of the difference."""
    cases = []
    for seeds, images, shift in ((1, 500, 0.04), (3, 400, 0.05)):
        # Images differ in difficulty, so that the seeds of one image depend on each other.
        hard = rng.random(images) * 0.5
        a = rng.random((seeds, images)) < 0.55 + shift + hard - 0.1
        b = rng.random((seeds, images)) < 0.55 + hard - 0.1
        differences = a.sum(0).astype(int) - b.sum(0).astype(int)
        result = stats.bootstrap(
            (differences / seeds,), np.mean, n_resamples=200_000, batch=5_000, confidence_level=0.95,
            method="percentile", rng=np.random.default_rng(1),
        )
        cases.append({
            "seeds": seeds,
            "differences": differences.tolist(),
            "low": float(result.confidence_interval.low),
            "high": float(result.confidence_interval.high),
            "se": float(result.standard_error),
        })
    return cases


def main():
    rng = np.random.default_rng(0)
    values = sorted(round(float(x), 6) for x in rng.random(17))
    families = [[0.01, 0.04, 0.03], [0.5, 0.001, 0.02, 0.02, 0.9], [0.7], [0.04, 0.04]]
    golden = {
        "mcnemar": mcnemar_cases(),
        "sign_flip": sign_flip_cases(rng),
        "bootstrap": bootstrap_cases(rng),
        "quantile": {"values": values, "of": [{"q": q, "value": float(np.quantile(values, q))} for q in (0, 0.025, 0.3, 0.975, 1)]},
        "holm": [{"p": p, "adjusted": multipletests(p, method="holm")[1].tolist()} for p in families],
    }
    TARGET.write_text(json.dumps(golden) + "\n")
    print(f"written: {TARGET.relative_to(TARGET.parent.parent.parent)}")


if __name__ == "__main__":
    main()
