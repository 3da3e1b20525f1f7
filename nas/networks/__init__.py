"""Networks: a module class for each block schema, and the builder that chains them.

`build` makes either form of a network; `fuse` turns the train form into the deploy form, and `apply_merges` merges
what is linear in it.
"""
