"""The peers' programs: what they are measured with, each in processes of its own."""
