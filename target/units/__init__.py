"""Logical units: the gate that every command passes, and the command sets behind it."""
