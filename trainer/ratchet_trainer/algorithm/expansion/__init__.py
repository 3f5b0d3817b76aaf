"""Slot: what else is sampled?"""
