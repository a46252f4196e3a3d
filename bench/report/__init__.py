"""Tables, figures and the text that opens with what was found, all from stored rows."""
