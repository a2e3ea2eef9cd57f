"""Measurements of fsmux beside a raw loop and other tools; ``make bench-smoke`` runs the short form."""
