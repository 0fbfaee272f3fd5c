"""How good a compressed checkpoint is: held against its original on data that it was not made with.

data ─► batches on disk ─► worker: the original's outputs on disk ─► worker: the other's outputs beside ─► metrics
"""
