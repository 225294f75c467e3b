"""What the code released with the paper computes where it departs from what the adapters' papers describe.

Chosen by ``--semantics release``, to compare with released numbers and checkpoints; docs/differences.md has
a list. The families know nothing of this: a variant is a builder that stands in for a family's, a kind of
:class:`Sites` whose places behave otherwise, or a change to the whole model. Families that are not named
here compute the same in both semantics.
"""
