"""The frame around every page: title, navigation, style.

The parser's worker processes import the main script anew: the guard at the end keeps them from running it, and
the imports inside the function from loading Streamlit. The pages end with the same guard.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

ASSETS = Path(__file__).resolve().parent / "assets"
# addresses of all pages but the first; Streamlit would print a text that stands alone here
PATHS = ("documents", "evidence", "account", "sign-out")


def main() -> None:
    """Draw the frame and run the page that the address names."""
    import streamlit as st

    from app_pages.parts.account import account_name, admitted, show_account, show_sign_in
    from app_pages.parts.deletions import finish_deletions
    from app_pages.parts.style import apply_style
    from rag.services import shared_services

    services = shared_services()
    st.logo(str(ASSETS / "logo.svg"), icon_image=str(ASSETS / "icon.png"), size="large")
    if not admitted(services):
        st.set_page_config(page_title="Second Look", page_icon=str(ASSETS / "icon.png"), layout="wide")
        apply_style()
        sign_in = partial(show_sign_in, services.access)
        st.navigation(  # at every address, or Streamlit would say that there is no such page
            [
                st.Page(sign_in, title="Sign in", default=True),
                *(st.Page(sign_in, title="Sign in", url_path=path) for path in PATHS),
            ],
            position="hidden",
        ).run()
        return
    pages = [
        st.Page("ask.py", title="Ask", icon=":material/search:", default=True),
        st.Page("documents.py", title="Documents", icon=":material/description:", url_path="documents"),
        st.Page("evidence.py", title="Evidence", icon=":material/balance:", url_path="evidence"),
    ]
    if services.access.login:
        account = partial(show_account, services)
        pages += [
            st.Page(account, title=account_name(), icon=":material/person:", url_path="account"),
            st.Page(st.logout, title="Sign out", icon=":material/logout:", url_path="sign-out"),
        ]
    page = st.navigation(pages, position="top")
    title = "Account" if page.url_path == "account" else page.title
    st.set_page_config(page_title=f"{title} · Second Look", page_icon=str(ASSETS / "icon.png"), layout="wide")
    apply_style()
    finish_deletions(here=page.url_path)
    page.run()


if __name__ == "__main__":
    main()
