"""Measure Hive beside its peers: ``python -m tests.bench -h``."""

import argparse
import json
import signal
import sys
from pathlib import Path

from tests.bench import report
from tests.bench.conditions import compile_first, conditions
from tests.bench.measurements import BY_NAME, MEASUREMENTS, PEERS
from tests.bench.rounds import run_rounds


def main(arguments=None):
    """Measure, write the JSON file, print the table; returns the exit code."""
    options = _parser().parse_args(arguments)
    values = json.loads(options.reuse.read_text()) if options.reuse else _measure(options)
    text = report.table(values)
    print(f"\n{text}")
    if options.markdown:
        page = options.markdown.read_text(encoding="utf-8")
        options.markdown.write_text(report.replace_table(page, text), encoding="utf-8")
        print(f"\nThe table is in {options.markdown}.")
    return 0 if values["complete"] else 130


def _measure(options):
    print("Compiling first: where bytecode is missing, starts would measure the compiler ...")
    compile_first()
    before = conditions()
    results = run_rounds(
        [BY_NAME[name] for name in options.only],
        options.without,
        quick=options.quick,
        rounds=options.rounds,
        say=lambda line: print(line, flush=True),
    )
    values = report.as_values(results, before, quick=options.quick)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    print(f"\nAll samples are in {options.json}.")
    return values


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measure Hive beside its peers, on the same work, taking turns. What counts is "
        "the ratios: they are of medians of one run on one machine.",
    )
    names = [measurement.name for measurement in MEASUREMENTS]
    parser.add_argument("--quick", action="store_true", help="one round, with less work")
    parser.add_argument("--rounds", type=int, metavar="N", help="so many rounds at most")
    parser.add_argument(
        "--only", nargs="+", default=names, choices=names, metavar="NAME", help=", ".join(names)
    )
    parser.add_argument(
        "--without", nargs="+", default=(), choices=PEERS, metavar="PEER", help=", ".join(PEERS)
    )
    parser.add_argument(
        "--json",
        type=Path,
        default=Path("build/bench.json"),
        metavar="FILE",
        help="where all samples go (default: build/bench.json, which git ignores)",
    )
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="put the table between the markers of FILE"
    )
    parser.add_argument(
        "--reuse", type=Path, metavar="FILE", help="measure nothing: take such a JSON file"
    )
    return parser


if __name__ == "__main__":
    # also where a shell starts it in the background, and for whoever ends it politely
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
