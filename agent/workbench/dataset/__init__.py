"""Labelled photographs: folders, globs and manifests in JSON Lines (SageMaker Ground Truth)."""
