"""The report: a manifest and its proof come in, report.json and report.html go out."""
