"""Report of an evaluation: page, tables, figures."""
