"""An HTML page and SVG charts from the JSON files of the benchmarks: ``python -m bench.report``."""
