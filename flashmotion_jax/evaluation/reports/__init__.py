"""Reports of an evaluation: tables, plots, JSON and the HTML page."""
