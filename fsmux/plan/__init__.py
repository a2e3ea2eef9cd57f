"""Deciding what is to be done, from listings alone: nothing in here opens a file or a socket."""
