"""Run folders: settings, inputs and provenance of a run, and the decision whether a run may continue."""
