"""The benchmark suites for pytest. Each test is a row of the result; its name is the claim it measures."""
