"""What a network is made of: sizes, costs and receptive fields, layer by layer."""
