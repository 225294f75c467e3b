"""Reports of ledgers: tables, plots and an HTML page (see ``docs/report.md``)."""
