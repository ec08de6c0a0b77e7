"""Everything as bytes: frames and messages between processes, and the log, snapshots and promises on a disk.

Bytes in, records out, and back. The disk layer reaches its files through `filesystem.FileSystem` only, so that the
same code runs on a real directory and on a simulated one. No socket, no file and no clock is touched here.
"""
