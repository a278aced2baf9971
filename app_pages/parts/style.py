"""The look of both pages; a fixed text, never with anything from outside in it."""

from __future__ import annotations

import streamlit as st

STYLE = """
<style>
  .block-container { padding-top: 4.75rem; padding-bottom: 3rem; max-width: 84rem; }
  .block-container h1 { font-size: 1.9rem; padding: .2rem 0 .4rem; }
  .block-container h3 { font-size: 1.2rem; }
  [class*="st-key-card-"] { scroll-margin-top: 5rem; gap: .5rem; }
  [class*="st-key-card-"] [data-testid="stHeading"] > div { margin-bottom: 0; }
  [class*="st-key-card-"] h3 {
    font-size: 1rem; padding: 0; line-height: 1.4; overflow-wrap: anywhere; scroll-margin-top: 6rem;
  }
  [class*="st-key-card-"] [data-testid="stText"] {
    font-size: .875rem; line-height: 1.5; white-space: pre-wrap; overflow-wrap: anywhere; font-family: inherit;
  }
  [class*="st-key-card-chosen"] { border-left-width: 4px; border-left-color: #1f8ea3; }
  [class*="st-key-card-"]:has(h3:target) { outline: 3px solid #ffc857; outline-offset: 1px; }
  [class*="st-key-answer-"] a { text-decoration: none; font-weight: 600; }
  [class*="st-key-cites-"] { gap: .1rem; }
</style>
"""


def apply_style() -> None:
    """Add the style to the page."""
    st.html(STYLE)
