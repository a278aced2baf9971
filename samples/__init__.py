"""The sample library: sources, the script that draws its PDFs, and its labelled questions."""
