"""Poses a training problem, runs a variant's steps and records what they show."""
