"""How fast and how large it is, beside what people use today: ``python -m benchmarks``. Not part of the package.

Read ``harness.py`` for how a figure comes about, ``rows/`` for what is measured, ``peers/`` for how the others
are driven. Nothing here is a test, and no figure in the docs comes from anywhere else.
"""
