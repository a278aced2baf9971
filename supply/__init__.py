"""Checks of what the app is made of: licences and known vulnerabilities of its packages."""
