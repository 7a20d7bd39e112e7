"""Fitted models: scikit-learn-style estimators that end as parts of a blueprint."""
