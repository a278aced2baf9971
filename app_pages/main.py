"""The frame around every page: title, navigation, style.

The guard at the end keeps the parser's worker processes, which import the main script anew, from running it.
"""

from __future__ import annotations

import streamlit as st


def main() -> None:
    """Draw the frame and run the page that the address names."""
    from app_pages.parts.deletions import finish_deletions
    from app_pages.parts.style import apply_style

    st.set_page_config(page_title="Second Look", page_icon=":material/visibility:", layout="wide")
    page = st.navigation(
        [
            st.Page("ask.py", title="Ask", icon=":material/search:", default=True),
            st.Page("documents.py", title="Documents", icon=":material/description:", url_path="documents"),
        ],
        position="top",
    )
    apply_style()
    finish_deletions(here=page.url_path)
    page.run()


if __name__ == "__main__":
    main()
