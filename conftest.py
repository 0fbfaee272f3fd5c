"""Tests that run side by side take one thread each: libraries' threads would wait for cores that other tests have."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
