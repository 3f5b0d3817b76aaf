"""Slot: how is the policy moved?"""
