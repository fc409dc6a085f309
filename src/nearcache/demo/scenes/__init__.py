"""The scenes: `play(stage)` of each module plays one, and its docstring says what it shows."""
