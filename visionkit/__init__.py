"""VisionKit: Keras vision networks in video and image pipelines, from a laptop to the edge."""

__version__ = "0.1.0"
