"""Side-by-side measurements against named baselines; `make bench` runs them all."""
