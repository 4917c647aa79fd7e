"""Stand-alone commands, ``python -m bench.tools.NAME``; each module's docstring says what it measures.

Not commands but shared by some of them: ``arguments``, ``budget`` (the memory a server promises to stay
under) and ``comparison`` (the table of ``compare``).
"""
