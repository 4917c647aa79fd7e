"""The benchmarks: pictures made by code, suites, and what they are compared with."""
