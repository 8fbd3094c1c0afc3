"""What comes in from and goes out to upstream services: versioned, validated, signed CloudEvents."""
