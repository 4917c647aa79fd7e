"""Stand-alone commands, ``python -m bench.tools.NAME``; each module's docstring says what it measures.

``budget`` (the memory a server stays under), ``comparison`` (the table of ``compare``) and ``threads`` are
not commands.
"""
