"""Writes the entries of an LMDB to standard output; runs as a process of its own.

LMDB trusts the lengths in its file: reading a damaged one can end the process, which must not be
that of the user. Each entry is the lengths of key and value, u64 little-endian, and both of them.
"""

import os
import struct
import sys

LENGTHS = struct.Struct("<QQ")


def dump(path: str) -> None:
    """Writes all entries in the order of their keys."""
    import lmdb

    environment = lmdb.open(
        path,
        subdir=os.path.isdir(path),
        readonly=True,
        create=False,
        lock=False,
        readahead=False,
    )
    with environment.begin(buffers=True) as transaction:
        for key, value in transaction.cursor():
            sys.stdout.buffer.write(LENGTHS.pack(len(key), len(value)))
            sys.stdout.buffer.write(key)
            sys.stdout.buffer.write(value)


if __name__ == "__main__":
    try:
        dump(sys.argv[1])
    except Exception as error:  # the parent says it
        sys.exit(str(error))
