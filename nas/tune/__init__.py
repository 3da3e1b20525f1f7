"""Running many trials: the search's state, its executors (Ray Tune or inline), and how a run ends.

Ray is imported in `ray_*`, `trainable` and `searcher` only.
"""
