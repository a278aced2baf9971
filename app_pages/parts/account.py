"""Who sits in front of the page: the owner of what it shows, the sign-in page, name and sign-out in the frame."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from app_pages.parts.text import plain
from rag.access import Access
from rag.pipeline import Stages
from rag.services import Services

LOGIN_PROBLEM = "The provider signed you in, but you are not on the list of those who may use this app."


def asking_user(services: Services) -> str:
    """Who sits in front of the page; ends the page where that is nobody who may use the app."""
    user = _user(services.access)
    if user is None:
        st.stop()
    return user


def asking_owner(services: Services) -> str:
    """Whose documents the page shows; ends the page as `asking_user` does."""
    return services.access.owner_of(asking_user(services))


def own_stages(services: Services) -> Stages:
    """What the asking person's questions run through."""
    return services.stages_of(asking_owner(services))


def admitted(services: Services) -> bool:
    """True where somebody sits there who may use the app."""
    return _user(services.access) is not None


def _user(access: Access) -> str | None:
    return access.user_of_claims(st.user.to_dict() if access.login else {})


def show_sign_in(access: Access) -> None:
    """What stands in the place of all pages for somebody who is not signed in."""
    _, middle, _ = st.columns([1, 2, 1])
    with middle, st.container(border=True, key="sign-in"):
        st.title("Second Look", anchor=False)
        st.markdown("Ask your PDFs, and see what a second, closer look at the passages changes.")
        if access.login is None:
            st.info(
                "This address serves the API alone. For these pages the operator sets up a login (`OIDC_ISSUER`).",
                icon=":material/api:",
            )
            return
        here = (st.context.url or "").rstrip("/")
        if here and not f"{here}/".startswith(f"{access.login.url}/"):
            st.link_button(
                f"Go to {plain(access.login.url)}", access.login.url, type="primary", width="stretch"
            )
            st.caption("You can sign in only there.")
        elif st.user.is_logged_in:
            st.error(LOGIN_PROBLEM, icon=":material/block:")
            st.button("Sign out", key="sign-out", on_click=st.logout, width="stretch")
        else:
            st.button(
                "Sign in",
                key="sign-in-button",
                icon=":material/login:",
                type="primary",
                width="stretch",
                on_click=st.login,
            )
            whose = (
                "All users share one library."
                if access.shared
                else "Everybody sees only their own documents."
            )
            st.caption(whose)


def account_name() -> str:
    """The signed-in person's name for the navigation, harmless in it."""
    claims = st.user.to_dict()
    known = next(
        (claims[one] for one in ("name", "preferred_username", "email") if claims.get(one)), "Account"
    )
    return plain(str(known), limit=30)


def show_account(services: Services) -> None:
    """The page about the signed-in person."""
    claims, user = st.user.to_dict(), asking_user(services)
    st.title("Account", anchor=False)
    st.markdown(f"Signed in as **{account_name()}**" + _email(claims))
    st.markdown("Your id. Whoever runs this installation makes API tokens for it with `second-look token`:")
    st.code(user, language=None)
    if services.access.shared:
        st.caption("All users share one library.")
    st.button("Sign out", key="sign-out", icon=":material/logout:", on_click=st.logout)


def _email(claims: Mapping[str, object]) -> str:
    email = claims.get("email")
    return f", {plain(str(email), limit=80)}" if email and str(email) != claims.get("name") else ""
