"""Make the template that every shape model is built with."""
