"""How each of the others is driven: thin adapters, each a context manager that gives a callback for documents."""
