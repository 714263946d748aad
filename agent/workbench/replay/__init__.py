"""Pictures that the camera client kept, inspected again: what a model says now beside what was answered then."""
