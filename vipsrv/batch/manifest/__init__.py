"""What a destination knows of the images that were done for it: a row each, kept in its folder ``.vipsrv``.

A shard that runs has its rows in a **journal**, a local file with a line of JSON for each. A shard that has
ended has them in a **part**, a file of Parquet at the destination. A run that was killed leaves journals;
the next one makes parts of them before it starts.
"""
