"""Benchmarks of the project against the data flow of the released code (see docs/performance.md).

``make bench`` runs all benchmarks, ``python -m benchmarks.text_step`` runs one. Each prints a table and
writes ``runs/benchmarks/NAME.json``.
"""
