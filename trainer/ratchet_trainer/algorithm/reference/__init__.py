"""Slot: against what is drift measured?"""
