"""Helpers of a course on deep generative models: data, models, training, measurement, figures, batch runs."""
