"""What ``jvq-fast doctor`` does: walks from the machine to the data, and judges what the code takes for granted.

`walk` does the walking and keeps what came, `evidence` looks at the messages, `statements` judges, `report` writes.
"""
