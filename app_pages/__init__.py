"""The pages: each file is read top to bottom by Streamlit."""
