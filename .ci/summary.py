"""Add up the stages and their test reports; exit non-zero unless all is well.

    python .ci/summary.py RESULTS_FOLDER SECONDS

The last line is one that test-report readers understand.
"""

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def main() -> int:
    """Print the table and the closing line."""
    results, seconds = Path(sys.argv[1]), int(sys.argv[2])
    tests = failed = skipped = 0
    reports: dict[str, str] = {}
    for path in sorted(results.glob("*.xml")):
        counts = [0, 0, 0]
        for suite in ElementTree.parse(path).getroot().iter("testsuite"):
            bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            skips = int(suite.get("skipped", 0))
            total = int(suite.get("tests", 0))
            counts = [counts[0] + total, counts[1] + bad, counts[2] + skips]
        tests, failed, skipped = (
            tests + counts[0],
            failed + counts[1],
            skipped + counts[2],
        )
        reports[path.stem] = f"{counts[0]} tests, {counts[1]} failed"
    print("\n=== summary")
    broken = 0
    for line in (results / "stages").read_text().splitlines():
        name, state, took, *why = line.split(" ", 3)
        note = " ".join(why) or reports.get(name, "")
        print(f"{name:<12} {state:<8} {int(took):>5} s  {note}")
        # A stage without tests counts as one; so does a runner that died.
        if name not in reports and state != "skipped":
            tests += 1
            failed += state == "failed"
        elif name not in reports:
            tests, skipped = tests + 1, skipped + 1
        elif state == "failed" and reports[name].endswith(" 0 failed"):
            tests, failed = tests + 1, failed + 1
        broken += state == "failed"
    print(f"{'all':<12} {'FAILED' if broken else 'ok':<8} {seconds:>5} s")
    print(f"{tests - failed - skipped} passed, {failed} failed, {skipped} skipped")
    return 1 if broken or failed else 0


if __name__ == "__main__":
    sys.exit(main())
