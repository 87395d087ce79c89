"""Labelled passages written for this project (see LABEL_GUIDE.md)."""
