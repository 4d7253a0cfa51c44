"""
One contestant, one measurement, once, in this fresh process: prints the samples as JSON.

``python -m tests.bench.one_round CONTESTANT FUNCTION SIZE``
"""

import importlib
import json
import os
import sys


def main(contestant, function, size):
    # What the contestants print themselves must not get between the samples.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    module = importlib.import_module(f"tests.bench.contestants.{contestant}")
    samples = getattr(module, function)(int(size))
    print(json.dumps(samples), file=answer, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
