"""Networks: a module class for each block schema, and the builder that chains them.

Every module has a train form and a deploy form of the same attributes. `fuse` turns the one into the other.
"""
