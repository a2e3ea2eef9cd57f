"""How a move of files between two processes on this machine is measured: for ``fsmux bench`` and for ``benchmarks/``.

``processes`` starts and measures whole processes, ``specimens`` makes what is moved and compares what has arrived,
``movers`` are fsmux and the raw loop (``rawloop``, a program of its own), ``runs`` lets movers take turns and makes
tables of what that gave.
"""
