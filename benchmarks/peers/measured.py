"""Run a command, and tell on the last line what it and its children took: ``python measured.py COMMAND...``.

The kernel counts a starting process's peak memory from that of whoever starts it, so this is a small process.
"""

import json
import os
import sys
import time

started = time.perf_counter()
_, status, usage = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ), 0)
took = {
    "processor": usage.ru_utime + usage.ru_stime,
    "wall": time.perf_counter() - started,
    "memory": usage.ru_maxrss / 1024,
}
print(f"\n{json.dumps(took)}")
sys.exit(min(1, status))
