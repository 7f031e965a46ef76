"""Files that users keep besides the store, one module each: columns or model, read, write."""
