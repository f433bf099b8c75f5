"""What must come out: closed forms and bounds, each citing its statement; nothing here simulates."""
