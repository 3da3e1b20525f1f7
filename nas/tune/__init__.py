"""Running many trials: the search's state, its executors (Ray Tune or inline), and how a run ends.

Ray is imported in `ray_session`, `ray_executor`, `ray_measuring`, `trainable` and `searcher` only.
"""
