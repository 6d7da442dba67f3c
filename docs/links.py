"""Links out of docs/, as a checkout has them, lead to the repository on the site."""

import re


def on_page_markdown(markdown: str, *, page, config, files) -> str:
    """The hook that MkDocs calls for each page."""
    return re.sub(r"\]\(\.\./", f"]({config.repo_url}/blob/main/", markdown)
