"""The page of a run: what is read of a run directory, and the HTML that is made of it. Imports no torch.

``findings`` and ``scores`` read, ``document`` puts the page together, and each other module is a
section of it or what sections are made of.
"""
