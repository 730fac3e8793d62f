"""Tables that a lab has from elsewhere become finished experiments of the lab, told as imported.

A source is read twice: first to the end, so that all that could be wrong with it is known before anything is
registered; then its rows are stored, under a claim as those of a run are.
"""
