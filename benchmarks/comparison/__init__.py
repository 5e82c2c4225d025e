"""Two ways of doing the same work, timed in turns.

`worker.py` is the process that works, `sides.py` what it can do, `turns.py` who goes when and what comes of
it, `entry.py` what the tests that use them share. Two ways under other settings work in a process each, of
which one always rests: an allocator's settings, or a framework's, are a process's own.
"""
