"""A photo and a caption as a model sees them: regions, attention, what hiding a part changes."""
