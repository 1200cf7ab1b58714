"""Recordings and scorings, the night files they become, the recipe of a network, and the streams that feed it."""
