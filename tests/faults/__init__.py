"""Faults of processes, disks and files, tried in numbers."""
