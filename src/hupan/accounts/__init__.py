"""What is true: one file a subject, with its records, its rules and its SQL together.

Rules are plain synchronous functions that take a `Context` first. They know neither messages nor
sockets; the command line, the wire and the console all call the same ones.
"""
