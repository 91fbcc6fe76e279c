"""Readers of dataset lists, one short function per format; `sniffing` chooses among them."""
