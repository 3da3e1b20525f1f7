"""Training a network in its train form, and evaluating its deploy form.

`loop` is the training; what it is made of is beside it: `augmentation`, `losses`, `optimizer`, `average`, `precision`.
`checkpoint` writes a training down, `evaluation` judges what came of it.
"""
