"""Evaluation as in the paper: crops, ensembles, errors, and the tables of section 5 beside ours."""
