"""Simulated pairs of event recordings: one scene, seen through a real and through an ideal lens."""
