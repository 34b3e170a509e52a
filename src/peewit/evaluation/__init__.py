"""How good the answers of a network are: metrics, calibration, inference, Grad-CAM."""
