"""What is on disk: model packages, their manifest, their self-test, their archives."""
