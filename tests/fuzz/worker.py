"""The process that runs fuzz cases for `harness.py`: a line with a seed comes in, a line with the outcome goes out.

    python tests/fuzz/worker.py TARGETS.py NAME FOLDER < seeds

`TARGETS.py` has a function NAME(folder) that prepares samples and returns the case: a function of a `random.Random`.
"""

import json
import os
import random
import resource
import runpy
import sys
import time
import traceback
from pathlib import Path

from preprocessing.errors import PipelineError

MEMORY = 2 << 30
"""Bytes that a case may take. What a library asks for and never touches does not count, up to `ADDRESSES`."""
ADDRESSES = 12 << 30
SECONDS = 20
"""Processor time that a case may take."""
MAX_MESSAGE = 5000


def peak() -> int:
    """The most memory that this process has had, bytes; `ru_maxrss` would count what its parent had, too."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) << 10


def outcome(case, seed: str, before: int) -> str:
    """`refused`, `read`, or a fault; `before` is the memory that the process has without a case."""
    begun = time.process_time()
    try:
        case(random.Random(seed))
        word = "read"
    except PipelineError as error:
        word = (
            "refused" if error.what and error.fix and len(str(error)) < MAX_MESSAGE else f"fault: {str(error)[:500]!r}"
        )
    except BaseException as error:
        where = "".join(traceback.format_exception(error)[-4:])
        return f"fault: {type(error).__name__}: {str(error)[:300]}\n{where[-1500:]}"
    seconds = time.process_time() - begun
    if (grown := peak() - before) > MEMORY:
        return f"fault: {grown >> 20} MB of memory"
    return word if seconds < SECONDS else f"fault: {seconds:.0f} s of processor time"


def main(targets: str, name: str, folder: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries in C print what they like
    os.dup2(1, 2)
    case = runpy.run_path(targets)[name](Path(folder))
    before, pages = peak(), int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ADDRESSES,) * 2)
    for line in sys.stdin:
        print(json.dumps(outcome(case, f"{name} {line.strip()}", before)), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
