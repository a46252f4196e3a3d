"""The report of what compilers made of operators, and of Alpa's plans."""
