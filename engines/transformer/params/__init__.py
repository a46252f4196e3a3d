"""The model's parameters: their arrays, fusion, number formats and memory layout."""
