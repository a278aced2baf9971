"""The frame around every page: title, navigation, style.

The parser's worker processes import the main script anew: the guard at the end keeps them from running it, and
the imports inside the function from loading Streamlit. The pages end with the same guard.
"""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).resolve().parent / "assets"


def main() -> None:
    """Draw the frame and run the page that the address names."""
    import streamlit as st

    from app_pages.parts.deletions import finish_deletions
    from app_pages.parts.style import apply_style

    st.logo(str(ASSETS / "logo.svg"), icon_image=str(ASSETS / "icon.png"), size="large")
    page = st.navigation(
        [
            st.Page("ask.py", title="Ask", icon=":material/search:", default=True),
            st.Page("documents.py", title="Documents", icon=":material/description:", url_path="documents"),
            st.Page("evidence.py", title="Evidence", icon=":material/balance:", url_path="evidence"),
        ],
        position="top",
    )
    st.set_page_config(
        page_title=f"{page.title} · Second Look", page_icon=str(ASSETS / "icon.png"), layout="wide"
    )
    apply_style()
    finish_deletions(here=page.url_path)
    page.run()


if __name__ == "__main__":
    main()
