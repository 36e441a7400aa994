"""One run: who takes part, the gate, which process measures, and what an earlier run already has."""
