"""Runs sets of variants, compares them, and judges the study's claims by what they scored."""
