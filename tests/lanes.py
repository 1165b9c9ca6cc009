"""``python tests/lanes.py [pytest's arguments]``: the whole suite in less time than one process takes.

Most tests wait: two processes run them side by side, file by file. What needs no quiet machine (mark `spare_time`)
is run by a third, whose work takes the time that the two leave. With -n, -m or --pdb pytest runs as it is told.
"""

import subprocess
import sys
import tempfile

PYTEST = [sys.executable, "-m", "pytest"]
NOTHING_TO_RUN = 5


def main(arguments: list[str]) -> int:
    if any(each.startswith(("-n", "-m", "--numprocesses", "--pdb")) for each in arguments):
        return subprocess.call([*PYTEST, *arguments])
    with tempfile.TemporaryFile("w+b") as output:
        spare = subprocess.Popen(
            [*PYTEST, "-m", "spare_time", "-p", "no:cacheprovider", *arguments], stdout=output, stderr=output
        )
        try:
            waiting = subprocess.call(
                [*PYTEST, "--numprocesses=2", "--dist=loadfile", "-m", "not spare_time", *arguments]
            )
            statuses = {waiting, spare.wait()}
        finally:
            spare.kill()
            spare.wait()
        output.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(output.read())
    statuses = statuses - {NOTHING_TO_RUN} or statuses
    return max(statuses)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
