"""The index: finds every run, asset, datum and derived result by uid or by query, and how each came to be.

It is a cache and holds no truth of its own: every row is a function of the lines of the journals, so that an index
that is deleted and built again answers everything as before. ``schema.py`` keeps the tables and everything that
is particular to a database, ``rows.py`` turns documents into rows, ``records.py`` rows into records, ``queries.py``
conditions into SQL, ``index.py`` is the index itself and ``lineage.py`` walks the provenance.
"""
