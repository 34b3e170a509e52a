"""How good the predictions of a network are: metrics, calibration, inference, Grad-CAM."""
