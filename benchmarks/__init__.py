"""Measurements of learnsolve and of its peers; run from the root of a checkout."""
