"""How good a network's answers are: metrics, calibration, inference, Grad-CAM."""
