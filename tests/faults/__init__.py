"""Faults that are injected into real runs: kills, full disks, damaged files. ``make test-faults``."""
