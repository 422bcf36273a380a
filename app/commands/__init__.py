"""The commands, one module for each noun; `app.cli` registers them."""
