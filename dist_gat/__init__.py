"""dist_gat: graph-attention recommenders on interaction graphs that outgrow one GPU and then one machine.

The verbs as Python functions are in `dist_gat.api`.
"""

__version__ = "0.1.0"
