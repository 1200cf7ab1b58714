"""How many hostile inputs does the toolkit answer well? ``python -m benchmarks.hostile --minutes 30``.

``tests/hostile/test_inputs.py`` again and again, with other inputs each time. An input that is not answered as it
should be is shown, the smallest of its kind, and the others go on.
"""

import argparse
import re
import sys
import time
from collections import Counter

import pytest

from benchmarks.device import machine


class Cases:
    """How many inputs of each kind were answered well, and how often one was not."""

    def __init__(self) -> None:
        self.passed: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()

    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
        if call.when == "call":
            told = getattr(item, "hypothesis_statistics", "")
            self.passed[item.name] += sum(map(int, re.findall(r"(\d+) passing", told)))
            self.failed[item.name] += call.excinfo is not None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="how long (default 30)")
    end, cases, seed = time.monotonic() + 60 * parser.parse_args().minutes, Cases(), 0
    while time.monotonic() < end:
        seed += 1
        own = ["--hypothesis-profile=many", f"--hypothesis-seed={seed}", "-p", "no:randomly", "--timeout=0"]
        pytest.main(["-q", "tests/hostile/test_inputs.py", *own], plugins=[cases])
    print(machine())
    print(f"{'kind of input':24}{'answered well':>16}{'rounds with a failure':>24}")
    for name, passed in sorted(cases.passed.items()):
        print(f"{name.removeprefix('test_'):24}{passed:16,}{cases.failed[name]:24}")
    print(f"{'all':24}{cases.passed.total():16,}{cases.failed.total():24}")
    return int(cases.failed.total() > 0 or not cases.passed.total())


if __name__ == "__main__":
    sys.exit(main())
