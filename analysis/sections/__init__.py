"""A file for each topic of the report: its table, its Markdown and its figures. `analysis.report` has their order."""
