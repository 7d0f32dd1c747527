"""Host-side figures and reports."""
