"""Slot: which prompts?"""
