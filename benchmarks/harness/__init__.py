"""How a cell is run. Knows the contract in `backends.base`, and no framework."""
