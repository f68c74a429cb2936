"""Tables of measurements: `python -m benchmarks [table ...]`."""

import argparse
import importlib
import os
import platform
import sys

TABLES = {
    "advantages": "advantages, record and resampling against verl and tunix's formula",
    "log_probs": "log-probabilities in vocabulary chunks against all at once",
    "simulator": "simulated desktop: steps a second, and where a round's time goes",
    "desktop": "real desktops: steps a second, reset, memory, widgets",
    "vlm": "Qwen-VL: train step against torch, sampling, loading",
    "scaling": "7B models compiled for TPU slices (hours; needs libtpu)",
    "miniwob_speed": "MiniWoB++ episodes a second against the stock environment",
}


def main() -> int:
    """Print the tables asked for; 1 if one of them could not be made."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Prints tables of measurements, in Markdown.",
        epilog="; ".join(f"{name}: {about}" for name, about in TABLES.items()),
    )
    parser.add_argument(
        "tables", nargs="*", metavar="table", help="default: all but scaling"
    )
    parser.add_argument(
        "--verl-python",
        default=os.environ.get("STEPJAX_VERL_PYTHON", ".venv-verl/bin/python"),
        help="interpreter that has verl; made by scripts/verl_venv.sh (%(default)s)",
    )
    parser.add_argument(
        "--chromium", default=None, help="browser of miniwob_speed; default: from PATH"
    )
    args = parser.parse_args()
    unknown = sorted(set(args.tables) - set(TABLES))
    if unknown:
        parser.error(f"unknown table {unknown[0]!r}; known: {', '.join(TABLES)}")
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores", end=", ")
    print(f"load {os.getloadavg()[0]:.1f} at the start")
    failed = 0
    for name in args.tables or [name for name in TABLES if name != "scaling"]:
        try:
            importlib.import_module(f"benchmarks.{name}").run(args)
        except (ImportError, OSError, RuntimeError) as error:
            print(f"\n{name}: {error}", file=sys.stderr)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
