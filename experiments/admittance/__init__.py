"""A hand drags the robot under different damping laws."""
