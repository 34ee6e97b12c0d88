"""ltxtrain: a reproducible training appliance for LTX-Video LoRAs."""

__version__ = "0.1.0"
