"""The look of all pages; a fixed text, never with anything from outside in it."""

from __future__ import annotations

import streamlit as st

STYLE = """
<style>
  .block-container { padding-top: 4.75rem; padding-bottom: 3rem; max-width: 84rem; }
  .block-container h1 { font-size: 1.9rem; padding: .2rem 0 .4rem; }
  /* Streamlit's own grey is too pale for small print: this one keeps 4.5 : 1 on every background of the theme */
  [data-testid="stCaptionContainer"] { color: color-mix(in srgb, currentcolor 78%, transparent); opacity: 1; }
  /* the dark theme's own colour is too light for white words on it */
  [data-testid="stBaseButton-primary"], [data-testid="stBaseButton-primaryFormSubmit"] {
    color: light-dark(#ffffff, #10181b);
  }
  [aria-expanded="true"] [data-testid="stPopoverButton"] p,
  [data-testid="stPopoverButton"][aria-expanded="true"] p {
    color: light-dark(#0b5a6b, #7fd0df);
  }
  .block-container h3 { font-size: 1.2rem; }
  [class*="st-key-card-"] { scroll-margin-top: 5rem; gap: .5rem; }
  [class*="st-key-card-"] [data-testid="stHeading"] > div { margin-bottom: 0; }
  [class*="st-key-card-"] h3 {
    font-size: 1rem; padding: 0; line-height: 1.4; overflow-wrap: anywhere; scroll-margin-top: 6rem;
  }
  [class*="st-key-card-"] [data-testid="stText"] {
    font-size: .875rem; line-height: 1.5; white-space: pre-wrap; overflow-wrap: anywhere; font-family: inherit;
  }
  [class*="st-key-card-waiting-"] { min-height: 17rem; border-style: dashed; }
  .st-key-latest-first [class*="st-key-answer-"] :is(p, ol, li) { margin: 0; }
  .st-key-latest-first [class*="st-key-answer-"] ol { padding-left: 1.4rem; }
  [class*="st-key-above-"] { min-height: 1.5rem; }
  .st-key-words-first { min-height: 2.5rem; }
  [class*="st-key-card-chosen"] { border-left-width: 4px; border-left-color: #1f8ea3; }
  [class*="st-key-card-"]:has(h3:target) { outline: 3px solid #ffc857; outline-offset: 1px; }
  [class*="st-key-answer-"] a { text-decoration: none; font-weight: 600; }
  [class*="st-key-cites-"] { gap: 0; }
  [class*="st-key-cites-"] button { min-height: 1.75rem; padding: 0; text-align: left; }
  [class*="st-key-cites-"] button p { font-size: .875rem; overflow-wrap: anywhere; }
  /* room for an answer that is still to come, and for what follows it: what stands below must not jump */
  [class*="st-key-latest-"] [class*="st-key-answer-"] { min-height: 11rem; }
  [class*="st-key-below-"] { min-height: 6.5rem; }
  .st-key-actions, .st-key-actions-stop { min-height: 2.5rem; column-gap: 1rem; row-gap: 0; }
  .st-key-actions button p { font-size: .875rem; }
  .st-key-words { row-gap: 0; }
  [class*="st-key-document-"] { flex-wrap: nowrap; }
  [class*="st-key-document-"] > :first-child { min-width: 0; overflow-wrap: anywhere; }
  [class*="st-key-foot-"] { column-gap: 1rem; row-gap: 0; min-height: 1.75rem; }
  [class*="st-key-foot-"] button { min-height: 1.75rem; padding-top: 0; padding-bottom: 0; }
  [class*="st-key-foot-"] button p { font-size: .875rem; }
  .st-key-controls { row-gap: .25rem; }
  .st-key-settings button { min-height: 2rem; padding-top: 0; padding-bottom: 0; }
  /* the button that copies the link, without having to find it by hovering */
  .st-key-address [data-testid="stCode"] div:has([data-testid="stElementToolbarButton"]) {
    opacity: 1; visibility: visible; transform: none;
  }
  /* the reranked order comes first on the page, and so on a phone; side by side it stands on the right */
  @media (min-width: 641px) {
    [class*="st-key-orders-"] [data-testid="stHorizontalBlock"]:has(> [data-testid="stColumn"] h3),
    [class*="st-key-answers-"]:not([class*="-blind"]) > [data-testid="stHorizontalBlock"],
    [class*="st-key-answers-"]:not([class*="-blind"]) > * > [data-testid="stHorizontalBlock"] {
      flex-direction: row-reverse;
    }
    [class*="st-key-picture-tall-"] { min-height: 31.5rem; }
  }
  @media (max-width: 640px) {
    [class*="st-key-picture-tall-"] { min-height: 39rem; }
    [class*="st-key-latest-"] [class*="st-key-answer-"] { min-height: 16rem; }
    [class*="st-key-below-"] { min-height: 16rem; }
    /* under a card: the page on a row of its own, both marks side by side on the next */
    [class*="st-key-foot-"] { flex-direction: column; align-items: flex-start; row-gap: .25rem; }
    [class*="st-key-foot-"] { min-height: 3.75rem; }
    [class*="st-key-judge-q"] { flex-wrap: nowrap; column-gap: 1rem; }
    [class*="st-key-judge-q"] button p { white-space: nowrap; }
  }
</style>
"""


def apply_style() -> None:
    """Add the style to the page."""
    st.html(STYLE)
