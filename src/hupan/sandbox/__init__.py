"""The stand-in for client writers: a server with fixed people, whose post can be read.

Only the command line composes it. A production server has none of its routes.
"""
