"""Tables, patients, splits and their audit. Free of torch."""
