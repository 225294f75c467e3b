"""How fast the project is, beside the plain data flow of the released code (see docs/performance.md).

``make bench`` runs all of it; ``python -m benchmarks.text_step`` one part. Each prints a table and writes
``runs/benchmarks/NAME.json``.
"""
