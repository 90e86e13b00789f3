"""Ways of keeping pixels: one room each, behind the contract in ``base``. Importing this imports none."""
