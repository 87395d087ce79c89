"""Emerging topics: themes that nobody asked for, with identities that stay and signals that were tested.

``window`` holds the documents and collapses copies, ``model`` fits BERTopic to them, ``registry`` gives what
it found the identities of before, ``signals`` tests which of them grow, ``pipeline`` does all of it in turn.
BERTopic is an extra (``stancewatch[discover]``), and importing it silences warnings in its whole process:
only ``model`` imports it, and gives the filters back.
"""
