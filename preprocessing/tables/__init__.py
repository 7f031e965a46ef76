"""Tables as people keep them (text, Excel, Parquet, packed or not) -> strings with their line numbers."""
