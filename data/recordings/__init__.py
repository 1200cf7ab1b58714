"""Recordings in any format: their channels, and what their signals are like."""
