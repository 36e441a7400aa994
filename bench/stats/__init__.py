"""From numbers to numbers: ratios with intervals, noise floors, verdicts, spreads over seeds."""
