"""What the user wants: formats, granularity, ranges, layer specs, configuration, presets. Plain Python."""
