"""What goes over the wire, one module for each noun. Import from the module that says it."""
