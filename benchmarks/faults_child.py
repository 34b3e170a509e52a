"""Run `peewit` while one operation on files fails, for ``faults.py``.

usage: faults_child.py NUMBER ARGUMENT...

The operations are temporary files made for writing, flushes to disk and renames. The NUMBER-th
fails, as with a full disk; 0 fails none. How many there were is printed on stderr.
"""

import errno
import os
import sys
import tempfile

from peewit.__main__ import main

FAILING = int(sys.argv[1])
count = 0


def counted(function):
    def wrapper(*arguments, **options):
        global count
        count += 1
        if count == FAILING:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return function(*arguments, **options)

    return wrapper


os.fsync, os.replace, os.rename = map(counted, (os.fsync, os.replace, os.rename))
tempfile.mkstemp = counted(tempfile.mkstemp)
code = main(sys.argv[2:])
print(f"operations: {count}", file=sys.stderr)
sys.exit(code)
