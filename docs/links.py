"""What pages need to be a site: links into the repository, and commands that are known as such."""

import re


def on_page_markdown(markdown: str, *, page, config, files) -> str:
    """The hook that MkDocs calls for each page."""
    markdown = re.sub(r"\]\(\.\./", f"]({config.repo_url}/blob/main/", markdown)
    return re.sub(r"^```\n(?=(?:mmt|make|pip|python) )", "```sh\n", markdown, flags=re.MULTILINE)
