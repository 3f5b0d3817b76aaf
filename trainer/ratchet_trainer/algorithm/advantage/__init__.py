"""Slot: which tokens earn a reward?"""
