"""Judging responses."""
