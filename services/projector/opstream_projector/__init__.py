"""The projector: folds the journal into the view. The process is `main`."""
