"""The demo shop: four real systems that hold personal data, its data map, and a check made directly in them."""
