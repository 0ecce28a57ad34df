"""Simulated pairs of event recordings: one scene, seen through a real and through an ideal lens."""

from data_simu.config import SimulationConfig
from data_simu.pairs import write_dataset
from data_simu.simulation import Pair, render, simulate

__all__ = ["Pair", "SimulationConfig", "render", "simulate", "write_dataset"]
