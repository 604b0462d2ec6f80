"""It holds under fire: writers, readers and a nemesis, and a checker of what they saw, in the manner of Jepsen."""
