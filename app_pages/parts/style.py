"""The look of both pages; a fixed text, never with anything from outside in it."""

from __future__ import annotations

import streamlit as st

STYLE = """
<style>
  .block-container { padding-top: 4.5rem; max-width: 82rem; }
  [class*="st-key-card"] { scroll-margin-top: 5rem; }
  [class*="st-key-card"] h3 { font-size: 1rem; padding: 0; line-height: 1.4; overflow-wrap: anywhere; }
  [class*="st-key-card"] [data-testid="stText"] {
    font-size: .875rem; line-height: 1.5; white-space: pre-wrap; overflow-wrap: anywhere;
    font-family: inherit; max-width: 75ch;
  }
  [class*="st-key-chosen"] { border-left: 4px solid var(--st-primary-color, #2f6fed); }
  [class*="st-key-answer"] a { text-decoration: none; font-weight: 600; }
</style>
"""


def apply_style() -> None:
    """Add the style to the page."""
    st.html(STYLE)
