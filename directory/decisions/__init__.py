"""What the Directory decides, as pure functions: from a snapshot of the state to the steps, without I/O, clock or dice.

Time and randomness are arguments, so that each decision can be tested, printed before it is done, and replayed.
"""
