"""The path of a request: intake → claim → execute → settle; and beside it sweep and operate."""
