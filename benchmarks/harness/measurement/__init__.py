"""How a cell is measured: steady blocks, their parts, the peak they are held against, and what else happened
on the machine meanwhile."""
