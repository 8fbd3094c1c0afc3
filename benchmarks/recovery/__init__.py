"""How soon work goes on after a fault."""
