"""For authors of plugins: new plugins from templates, lint, pages of examples."""
