"""The look of all pages; a fixed text, never with anything from outside in it."""

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
  [class*="st-key-cites-"] { gap: 0; }
  [class*="st-key-cites-"] button { min-height: 1.75rem; padding: 0; text-align: left; }
  [class*="st-key-cites-"] button p { font-size: .875rem; overflow-wrap: anywhere; }
  /* room for an answer that is still to come: what stands below must not jump */
  [class*="st-key-latest-"] [class*="st-key-answer-"] { min-height: 9rem; }
  .st-key-actions, .st-key-actions-stop { min-height: 2.5rem; column-gap: 1rem; row-gap: 0; }
  .st-key-actions button p { font-size: .875rem; }
  .st-key-words { row-gap: 0; }
  .st-key-controls { row-gap: .25rem; }
  .st-key-settings button { min-height: 2rem; padding-top: 0; padding-bottom: 0; }
  /* the button that copies the link, without having to find it by hovering */
  .st-key-address [data-testid="stCode"] div:has([data-testid="stElementToolbarButton"]) {
    opacity: 1; visibility: visible; transform: none;
  }
  @media (max-width: 640px) {
    /* columns stand one below the other here: the reranked one first */
    [class*="st-key-orders-"] [data-testid="stHorizontalBlock"]:has(> [data-testid="stColumn"] h3),
    [class*="st-key-answers-"]:not([class*="-blind"]) [data-testid="stHorizontalBlock"] {
      display: flex; flex-direction: column-reverse;
    }
  }
</style>
"""


def apply_style() -> None:
    """Add the style to the page."""
    st.html(STYLE)
