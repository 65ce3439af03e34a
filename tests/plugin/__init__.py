"""The pytest plugin and the redirection, as the tests of a client meet them."""
