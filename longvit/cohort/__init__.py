"""Tables, patients, splits and the audit of splits. Free of torch."""
