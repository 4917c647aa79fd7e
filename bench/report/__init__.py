"""An HTML page and SVG charts from what the benchmarks wrote as JSON: ``python -m bench.report``."""
