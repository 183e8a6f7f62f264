"""Comparisons of methods: the file that says what is compared, its runs, their tables and figures."""
