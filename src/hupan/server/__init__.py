"""Who answers: the door, the answers behind it, and the composition of a server."""
