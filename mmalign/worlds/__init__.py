"""Synthetic media whose true reward is known exactly, so that "alignment worked" is a number with an interval."""
