"""The index: finds every run, asset, datum and derived result by uid or by query, and how each came to be.

It is a cache and holds no truth of its own: every row is a function of the lines of the journals, so that an
index that is deleted and built again answers everything as before. ``index.py`` is the index itself and
``lineage.py`` walks the provenance; ``rows.py`` turns documents into rows, ``keeping.py`` stores them,
``records.py`` and ``points.py`` turn rows into answers, ``queries.py`` and ``values.py`` conditions into SQL;
``schema.py`` has the tables, ``database.py`` lends connections, ``sqlite.py`` is all that is SQLite's own.
"""
