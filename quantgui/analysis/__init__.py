"""Long computations as generators of events: calibration, errors, evaluation, advice."""
