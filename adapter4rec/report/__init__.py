"""Reports: tables, pictures and a page of what ledgers hold (see ``docs/report.md``)."""
