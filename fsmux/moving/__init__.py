"""How a transfer is carried out: what goes where, the scan, the plan, packs of small files, sessions of large ones.

Strategy: ``transfer.py`` maps sources to their places and moves single files; ``tree.py`` moves a tree, scanning,
planning and moving side by side; ``carriers.py`` takes what a plan makes to the other side in packs, which ``packs.py``
cuts; ``report.py`` counts and tells.  The two sides of a transfer are the sites of :mod:`fsmux.sites`, so upload and
download are one procedure.
"""
