"""The benchmark suites, for pytest: each test is a row of the result, and its name is the claim it
measures.
"""
