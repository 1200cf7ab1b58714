"""Recordings in any format: their channels, and the quality of their signals."""
