"""Damage small valid files in thousands of ways and check what the readers of dartjax do."""
